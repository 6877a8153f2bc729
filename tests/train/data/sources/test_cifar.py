"""CIFAR's binary version, from an archive and from what was unpacked from it."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from tests.train.data.small_files import cifar_files, random, small_cifar, tar_bytes
from train.data.sources import cifar
from train.system.errors import UserError


@pytest.mark.parametrize("source", cifar.SOURCES, ids=["cifar10", "cifar100"])
def test_images_and_fine_labels_of_the_archive_and_of_the_unpacked_folder(tmp_path, source):
    source = small_cifar(tmp_path / "packed", source)
    inside, files = cifar_files(source, 4), len(source.read.keywords["train"])
    (archive,) = source.files
    (tmp_path / archive.unpacked).mkdir()
    for file, content in inside.items():
        (tmp_path / archive.unpacked / file).write_bytes(content)
    for folder in (tmp_path / "packed", tmp_path):
        dataset = source.load(source.find(folder))
        assert dataset.image_shape == source.image_shape
        assert dataset.num_classes == {"cifar10": 10, "cifar100": 100}[source.name]
        images = [random(4, 32, 32, 3, seed=number) for number in range(files)]
        np.testing.assert_array_equal(dataset.train.images, np.concatenate(images))
        np.testing.assert_array_equal(dataset.test.images, random(4, 32, 32, 3, seed=files))
        assert dataset.train.labels.tolist() == [i + f for f in range(files) for i in range(4)]
        assert dataset.test.labels.tolist() == [files + i for i in range(4)]


def read(tmp_path, content: bytes):
    path = tmp_path / "other.tar.gz"
    path.write_bytes(content)
    return small_cifar(tmp_path, cifar.CIFAR10).load([path])


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


def test_what_is_no_archive(tmp_path):
    for content in (b"", gzip.compress(b"no archive" * 100), b"text" * 300):
        with pytest.raises(UserError, match="no sound tar archive|lacks the file"):
            read(tmp_path, content)
