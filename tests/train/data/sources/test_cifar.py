"""CIFAR's binary version, from an archive and from what was unpacked from it."""

import gzip
import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import cifar_files, random, small_cifar, tar_bytes
from train.data import catalog, load_dataset
from train.data.sources import cifar
from train.system.errors import UserError

SOURCES = pytest.mark.parametrize("name", cifar.SOURCES)


@SOURCES
def test_the_table_equals_the_one_in_tensorflow_datasets(name):
    file = cifar.SOURCES[name].archive
    info = tfds.builder_cls(name).url_infos[file.url]
    assert (int(info.size), info.checksum, info.filename) == (
        file.fingerprint.size,
        file.fingerprint.sha256,
        file.name,
    )


@SOURCES
def test_images_and_fine_labels(monkeypatch, tmp_path, name):
    source = small_cifar(tmp_path, cifar.SOURCES[name])
    monkeypatch.setitem(catalog.SOURCES, name, source)
    dataset = load_dataset(name, data_dir=tmp_path)
    files = len(source.train)
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    np.testing.assert_array_equal(
        dataset.train.images, np.concatenate([random(4, 32, 32, 3, seed=i) for i in range(files)])
    )
    np.testing.assert_array_equal(dataset.test.images, random(4, 32, 32, 3, seed=files))
    assert dataset.train.labels.tolist() == [i + file for file in range(files) for i in range(4)]
    assert dataset.test.labels.tolist() == [files + i for i in range(4)]


@SOURCES
def test_the_unpacked_folder_is_as_good(monkeypatch, tmp_path, name):
    source = small_cifar(tmp_path / "packed", cifar.SOURCES[name])
    monkeypatch.setitem(catalog.SOURCES, name, source)
    folder = tmp_path / source.archive.unpacked
    folder.mkdir()
    for file, content in cifar_files(source, 4).items():
        (folder / file).write_bytes(content)
    packed = load_dataset(name, data_dir=tmp_path / "packed")
    unpacked = load_dataset(name, data_dir=tmp_path)
    np.testing.assert_array_equal(packed.train.images, unpacked.train.images)
    np.testing.assert_array_equal(packed.test.labels, unpacked.test.labels)


def read(tmp_path, content: bytes):
    source = small_cifar(tmp_path, cifar.CIFAR10)
    path = tmp_path / "other.tar.gz"
    path.write_bytes(content)
    return source.read({source.archive.name: path})


def test_a_file_of_another_size(tmp_path):
    files = cifar_files(cifar.CIFAR10, 4)
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]
    with pytest.raises(UserError, match="data_batch_3.bin of only 12,291 bytes, where 12,292 bel"):
        read(tmp_path, tar_bytes(files))
    files["data_batch_3.bin"] += bytes(1000)
    with pytest.raises(UserError, match="data_batch_3.bin of at least 12,293 bytes"):
        read(tmp_path, tar_bytes(files))


def test_a_file_that_is_missing(tmp_path):
    files = cifar_files(cifar.CIFAR10, 4)
    del files["test_batch.bin"]
    with pytest.raises(UserError, match="lacks the file test_batch.bin"):
        read(tmp_path, tar_bytes(files))


def test_every_fiftieth_truncation(tmp_path):
    content = tar_bytes(cifar_files(cifar.CIFAR10, 4))
    for length in range(0, len(content) - 300, len(content) // 50):
        with pytest.raises(UserError):
            read(tmp_path, content[:length])


def test_members_go_nowhere(tmp_path):
    """A name that leads out of the archive is a name, and a link is no file."""
    files = cifar_files(cifar.CIFAR10, 4)
    files = {f"../../{name}": content for name, content in files.items()}
    assert len(read(tmp_path, tar_bytes(files)).train) == 20
    assert not list(tmp_path.parent.glob("*.bin"))

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match="lacks the file data_batch_1.bin"):
        read(tmp_path, file.getvalue())


def test_an_archive_that_would_fill_the_memory_or_never_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_BYTES", 10**6)
    bomb = tar_bytes({"padding": bytes(2 * 10**6)})
    assert len(bomb) < 10**4
    with pytest.raises(UserError, match="unpacks to more than 1,000,000 bytes"):
        read(tmp_path, bomb)


def test_what_is_no_archive(tmp_path):
    for content in (b"", gzip.compress(b"no archive" * 100), b"text" * 300):
        with pytest.raises(UserError, match="no sound tar archive|lacks the file"):
            read(tmp_path, content)
