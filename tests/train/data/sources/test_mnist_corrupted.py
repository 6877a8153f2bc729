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
from train.data.catalog import SOURCES
from train.data.sources.mnist_corrupted import CORRUPTIONS
from train.system.errors import UserError

FOG, STRIPE = SOURCES["mnist_corrupted/fog"], SOURCES["mnist_corrupted/stripe"]


def test_the_corruptions_are_those_of_tensorflow_datasets():
    stock = tfds.builder_cls("mnist_corrupted").BUILDER_CONFIGS
    assert tuple(config.name for config in stock) == CORRUPTIONS


def test_one_corruption_from_the_archive_and_what_is_unpacked_from_it(tmp_path):
    source = small_mnist_c(tmp_path / "packed", FOG)
    for path, content in mnist_c_files("fog").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for folder in (tmp_path / "packed", tmp_path):
        dataset = source.load(source.find(folder))
        assert dataset.name == "mnist_corrupted/fog"
        assert dataset.image_shape == source.image_shape
        np.testing.assert_array_equal(dataset.train.images, random(12, 28, 28, 1, seed=12))
        assert dataset.test.labels.tolist() == list(range(10))


def test_a_corruption_that_the_archive_lacks(tmp_path):
    small_mnist_c(tmp_path, FOG)
    with pytest.raises(UserError, match="lacks the file mnist_c/stripe/train_images.npy"):
        STRIPE.load([tmp_path / "mnist_c.zip"])


def test_labels_that_are_no_integers(tmp_path):
    files = mnist_c_files("fog") | {"mnist_c/fog/train_labels.npy": npy_bytes(np.zeros(12))}
    (tmp_path / "mnist_c.zip").write_bytes(zip_bytes(files))
    with pytest.raises(UserError, match="labels of float64"):
        FOG.load([tmp_path / "mnist_c.zip"])
