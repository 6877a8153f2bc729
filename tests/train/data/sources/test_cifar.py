"""CIFAR, from its archives and from what was unpacked from them."""

import dataclasses
import pickle
import subprocess

import numpy as np
import pytest

from tests.train.data.small_files import cifar_files, official, random, small_cifar, tar_bytes
from train.data.official import Source
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


@pytest.fixture
def folder(tmp_path):
    """The files that a user has unpacked."""
    for name, content in cifar_files(cifar.CIFAR10, 4).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def load(folder):
    return small_cifar(folder / "packed", cifar.CIFAR10).load([folder])


def test_an_unpacked_file_of_another_size(folder):
    path = folder / "data_batch_3.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{path} has 12,291 bytes, where 12,292 belong"):
        load(folder)
    path.write_bytes(content + bytes(1000))
    with pytest.raises(UserError, match=f"{path} has 13,292 bytes, where 12,292 belong"):
        load(folder)


def test_an_unpacked_file_that_is_missing(folder):
    (folder / "test_batch.bin").unlink()
    with pytest.raises(UserError, match=r"CIFAR \(.*No such file.*test_batch.bin"):
        load(folder)


def test_members_go_nowhere(tmp_path):
    """A name that leads out of the archive is a name."""
    files = cifar_files(cifar.CIFAR10, 4)
    path = tmp_path / "other.tar.gz"
    path.write_bytes(tar_bytes({f"../../{name}": content for name, content in files.items()}))
    assert len(small_cifar(tmp_path / "packed", cifar.CIFAR10).load([path]).train) == 20
    assert not list(tmp_path.parent.glob("*.bin"))


def for_python(source: Source, each: int) -> dict[str, bytes]:
    """The files of `cifar_files` as they are for Python."""
    layout, files = source.read.keywords, {}
    for name, content in cifar_files(source, each).items():
        records = np.frombuffer(content, np.uint8).reshape(each, -1)
        labels = records[:, layout["labels"] - 1].tolist()
        key = b"labels" if layout["labels"] == 1 else b"fine_labels"
        found = {b"data": np.array(records[:, layout["labels"] :]), key: labels}
        files[name.removesuffix(".bin")] = pickle.dumps(found, protocol=3)
    return files


@pytest.mark.parametrize("source", cifar.SOURCES, ids=["cifar10", "cifar100"])
def test_the_version_for_python_has_the_same_images(tmp_path, source):
    source = small_cifar(tmp_path / "binary", source)
    files = for_python(source, 4)
    (archive,) = source.files
    content = tar_bytes({f"{archive.other.unpacked}/{k}": v for k, v in files.items()})
    source = dataclasses.replace(
        source, files=(dataclasses.replace(archive, other=official(archive.other, content)),)
    )
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / archive.other.name).write_bytes(content)
    (tmp_path / archive.other.unpacked).mkdir()
    for name, of_file in files.items():
        (tmp_path / archive.other.unpacked / name).write_bytes(of_file)
    binary, *others = (
        source.load(source.find(folder))
        for folder in (tmp_path / "binary", tmp_path / "packed", tmp_path)
    )
    for other in others:
        assert other.fingerprints == binary.fingerprints
    with pytest.raises(UserError, match="must hold CIFAR-.* in its binary .*, or cifar-.*-python"):
        source.find(tmp_path / "none")


def test_nothing_but_arrays_is_made_of_a_file_for_python(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in for_python(cifar.CIFAR10, 4):
        (folder / name).write_bytes(pickle.dumps(subprocess.Popen, protocol=3))
    with pytest.raises(UserError, match=r"holds subprocess.Popen, which is no array"):
        cifar.CIFAR10.load(cifar.CIFAR10.find(tmp_path))
