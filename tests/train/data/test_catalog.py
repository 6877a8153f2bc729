"""Data sets by name."""

import numpy as np
import pytest

from train.data import Dataset, list_datasets, load_dataset
from train.errors import UserError


def test_the_names():
    assert list_datasets() == (
        "digits",
        "mnist",
        "fashion_mnist",
        "multi_mnist",
        "mnist-40x40",
        "affnist-generated",
        "affnist",
    )


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(UserError, match="no data set 'minst': choose one of digits, mnist, fashio"):
        load_dataset("minst")


def test_digits_need_nothing():
    dataset = load_dataset("digits")
    assert isinstance(dataset, Dataset)
    assert dataset.name == "digits"
    assert np.unique(dataset.test.labels).tolist() == list(range(10))


def test_the_folders_are_passed_on(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*the training images of fashion_mnist"):
        load_dataset("fashion_mnist", data_dir=tmp_path, cache_dir=tmp_path / "cache")
