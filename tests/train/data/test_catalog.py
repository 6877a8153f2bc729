"""Data sets by name."""

from pathlib import Path

import numpy as np
import pytest

from train.data import Dataset, as_file_name, catalog, is_dataset, list_datasets, load_dataset
from train.data.catalog import find_source, is_at_hand
from train.system.errors import UserError


def test_the_names():
    assert list_datasets() == (
        "digits",
        "mnist",
        "fashion_mnist",
        "kmnist",
        "multi_mnist",
        "mnist-40x40",
        "affnist-generated",
        "affnist",
        "cifar10",
        "cifar100",
        "svhn_cropped",
        "smallnorb",
        "smallnorb-azimuth",
        "smallnorb-azimuth-familiar",
        "smallnorb-elevation",
        "smallnorb-elevation-familiar",
        "mnist_corrupted/CORRUPTION",
        "folder:PATH",
        "npz:FILE",
    )


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["README.md", "docs/datasets.md"])
def test_a_page_has_every_name(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in list_datasets() if f"`{name}`" not in text] == []


def test_the_docs_have_every_file():
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    for source in catalog.SOURCES.values():
        for file in source.files:
            stem = file.name.rpartition("-")[0] if "smallnorb" in file.name else f"`{file.name}`"
            assert stem in text


@pytest.mark.parametrize("name", ["digits", "kmnist", "mnist_corrupted/fog", "folder:a", "npz:b"])
def test_names_that_are_known(name):
    assert is_dataset(name)


@pytest.mark.parametrize(
    "name", ["", "minst", "folder:", "npz:", "mnist_corrupted/", "mnist_corrupted"]
)
def test_names_that_are_not(name):
    assert not is_dataset(name)


def test_every_source_bears_its_name():
    for name, source in catalog.SOURCES.items():
        assert find_source(name) is source
        assert source.name == name
    assert find_source("digits") is None


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(UserError, match="no data set 'minst': choose one of digits, mnist, fashio"):
        load_dataset("minst")


def test_digits_need_nothing():
    dataset = load_dataset("digits")
    assert isinstance(dataset, Dataset)
    assert dataset.name == "digits"
    assert np.unique(dataset.test.labels).tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fashion_mnist", "the training images of fashion_mnist"),
        ("kmnist", "the training images of kmnist"),
        ("cifar100", "CIFAR-100 in its binary version"),
        ("mnist_corrupted/fog", "MNIST-C"),
        ("svhn_cropped", "the training images and labels of SVHN"),
    ],
)
def test_the_folders_are_passed_on(tmp_path, name, told):
    with pytest.raises(UserError, match=f"{tmp_path}.*{told}.* as published at http"):
        load_dataset(name, data_dir=tmp_path, cache_dir=tmp_path / "cache")


def test_what_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert is_at_hand("digits")
    assert is_at_hand("folder:anything")
    assert not is_at_hand("kmnist")
    assert not is_at_hand("cifar10")
    downloaded = tmp_path / "downloads" / "cifar10" / "cifar-10-binary.tar.gz"
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(b"")
    assert is_at_hand("cifar10")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist"),
        ("smallnorb-azimuth", "smallnorb-azimuth"),
        ("mnist_corrupted/fog", "mnist_corrupted-fog"),
        ("folder:/data/my photos@8x8", "folder--data-my-photos@8x8"),
    ],
)
def test_a_name_in_a_file_name(name, file):
    assert as_file_name(name) == file
