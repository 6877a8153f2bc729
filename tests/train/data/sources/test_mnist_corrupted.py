"""MNIST-C, from an archive and from what was unpacked from it."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import (
    mnist_c_files,
    npy_bytes,
    random,
    small_mnist_c,
    zip_bytes,
)
from train.data import catalog, load_dataset
from train.data.sources import mnist_corrupted
from train.system.errors import UserError

NAME = "mnist_corrupted/fog"


def test_the_table_equals_the_one_in_tensorflow_datasets():
    stock = tfds.builder_cls("mnist_corrupted")
    (info,) = stock.url_infos.values()
    archive = mnist_corrupted.ARCHIVE
    assert set(stock.url_infos) == {archive.url}
    assert (int(info.size), info.checksum, info.filename) == (
        archive.fingerprint.size,
        archive.fingerprint.sha256,
        archive.name,
    )
    assert tuple(config.name for config in stock.BUILDER_CONFIGS) == mnist_corrupted.CORRUPTIONS


def test_one_corruption(monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.SOURCES, NAME, small_mnist_c(tmp_path, "fog"))
    dataset = load_dataset(NAME, data_dir=tmp_path)
    assert dataset.name == NAME
    np.testing.assert_array_equal(dataset.train.images, random(12, 28, 28, 1, seed=12))
    assert dataset.test.labels.tolist() == list(range(10))


def test_the_unpacked_folder_is_as_good(monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.SOURCES, NAME, small_mnist_c(tmp_path / "packed", "fog"))
    for path, content in mnist_c_files("fog").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    packed = load_dataset(NAME, data_dir=tmp_path / "packed")
    unpacked = load_dataset(NAME, data_dir=tmp_path)
    np.testing.assert_array_equal(packed.train.images, unpacked.train.images)


def test_a_corruption_that_the_archive_lacks(tmp_path):
    source = small_mnist_c(tmp_path, "fog")
    other = mnist_corrupted.MnistCorrupted("stripe", source.files)
    with pytest.raises(UserError, match="lacks the file mnist_c/stripe/train_images.npy"):
        other.read({"mnist_c.zip": tmp_path / "mnist_c.zip"})


def test_labels_that_are_no_integers(tmp_path):
    files = mnist_c_files("fog") | {"mnist_c/fog/train_labels.npy": npy_bytes(np.zeros(12))}
    (tmp_path / "mnist_c.zip").write_bytes(zip_bytes(files))
    with pytest.raises(UserError, match="labels of float64"):
        mnist_corrupted.MnistCorrupted("fog").read({"mnist_c.zip": tmp_path / "mnist_c.zip"})


def test_an_unknown_corruption_lists_the_right_ones():
    with pytest.raises(
        UserError, match="choose mnist_corrupted/ and one of identity, .*, canny_edges"
    ):
        load_dataset("mnist_corrupted/frog")
