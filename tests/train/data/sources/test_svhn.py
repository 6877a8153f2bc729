"""SVHN from files that SciPy writes in the layout of the official ones."""

import numpy as np

from tests.train.data.small_files import random, small_svhn


def test_images_and_labels(tmp_path):
    source = small_svhn(tmp_path)
    dataset = source.load(source.find(tmp_path))
    assert dataset.image_shape == source.image_shape
    np.testing.assert_array_equal(dataset.train.images, random(12, 32, 32, 3, seed=12))
    assert dataset.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert len(dataset.test) == 10
