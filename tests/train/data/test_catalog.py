"""Data sets by name, and where their files come from."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import small_cifar, small_mnist
from train.data import as_file_name, catalog, is_dataset, list_datasets, load_dataset
from train.data.catalog import SOURCES, is_at_hand
from train.data.sources import cifar, mnist
from train.system.errors import UserError

ROOT = Path(__file__).parents[3]


def test_the_names():
    assert list_datasets() == (
        "digits",
        "mnist",
        "fashion_mnist",
        "kmnist",
        "kuzushiji49",
        "qmnist",
        "qmnist-10k",
        "qmnist-50k",
        "cifar10",
        "cifar100",
        "svhn_cropped",
        "smallnorb",
        "smallnorb-azimuth",
        "smallnorb-azimuth-familiar",
        "smallnorb-elevation",
        "smallnorb-elevation-familiar",
        "multi_mnist",
        "mnist-40x40",
        "affnist-generated",
        "affnist",
        "mnist_corrupted/CORRUPTION",
        "emnist/PART",
        "folder:PATH",
        "npz:FILE",
        "tfds:NAME",
    )


def test_the_docs_have_every_name():
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert [name for name in list_datasets() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_docs_have_files_and_licence_of_every_source(source):
    rows = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8").splitlines()
    families = {"mnist_corrupted": "mnist_corrupted/CORRUPTION", "emnist": "emnist/PART"}
    name = families.get(source.tfds_name.partition("/")[0], source.tfds_name)
    (row,) = (row for row in rows if row.startswith(f"| `{name}`"))
    assert source.licence in row
    if "files of the same names" not in row:
        for file in source.files:
            stem = file.name.rpartition("-")[0] if name == "smallnorb" else f"`{file.name}`"
            assert stem in row


@pytest.mark.parametrize("name", ["digits", "kmnist", "mnist_corrupted/fog", "folder:a", "npz:b"])
def test_names_that_are_known(name):
    assert is_dataset(name)


@pytest.mark.parametrize(
    "name", ["", "minst", "folder:", "npz:", "mnist_corrupted/", "mnist_corrupted"]
)
def test_names_that_are_not(name):
    assert not is_dataset(name)


def test_an_unknown_name_lists_the_right_ones():
    with pytest.raises(
        UserError,
        match="no data set 'minst' .did you mean mnist..: choose one of digits",
    ):
        load_dataset("minst")
    with pytest.raises(
        UserError, match="choose mnist_corrupted/ and one of identity, .*, canny_edges"
    ):
        load_dataset("mnist_corrupted/frog")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fashion_mnist", "the training images of fashion_mnist"),
        ("kmnist", "the training images of kmnist"),
        ("cifar100", "CIFAR-100 in its binary version"),
        ("mnist_corrupted/fog", "MNIST-C"),
        ("svhn_cropped", "the training images and labels of SVHN"),
        ("smallnorb", "the training images of smallNORB"),
    ],
)
def test_the_folder_is_passed_on(tmp_path, name, told):
    with pytest.raises(UserError, match=f"{tmp_path}.*{told}.* as published at http"):
        load_dataset(name, data_dir=tmp_path)


def test_what_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert is_at_hand("digits")
    assert is_at_hand("folder:anything")
    assert not is_at_hand("kmnist")
    assert not is_at_hand("multi_mnist")
    assert not is_at_hand("cifar10")
    downloaded = tmp_path / "downloads" / "cifar10" / "cifar-10-binary.tar.gz"
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(b"")
    assert is_at_hand("cifar10")


def test_a_set_in_mnists_format_is_the_same_with_tensorflow_datasets_and_without(
    tmp_path, monkeypatch
):
    files, cache = tmp_path / "files", tmp_path / "cache"
    monkeypatch.setitem(SOURCES, "kmnist", small_mnist(files, mnist.KMNIST))
    monkeypatch.setenv("TFDS_DATA_DIR", str(cache))
    prepared = load_dataset("kmnist", data_dir=files)
    assert is_at_hand("kmnist")
    again = load_dataset("kmnist")
    with pytest.raises(UserError, match="gone"):  # looked at, though the cache has the images
        load_dataset("kmnist", data_dir=tmp_path / "gone")
    monkeypatch.setattr(catalog, "_cache", lambda: None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "unused"))
    direct = load_dataset("kmnist", data_dir=files)
    assert not (tmp_path / "unused").exists()
    for other in (again, direct):
        for ours, theirs in ((prepared.train, other.train), (prepared.test, other.test)):
            np.testing.assert_array_equal(ours.images, theirs.images, strict=True)
            np.testing.assert_array_equal(ours.labels, theirs.labels, strict=True)
        assert prepared.class_names == other.class_names


@pytest.mark.parametrize("has_tfds", [True, False])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_files_that_are_not_the_official_ones_are_never_read(name, has_tfds, tmp_path, monkeypatch):
    if not has_tfds:
        monkeypatch.setattr(catalog, "_cache", lambda: None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    make = small_mnist if name == "mnist" else small_cifar
    source = make(tmp_path, SOURCES[name])
    monkeypatch.setitem(SOURCES, name, source)
    (tmp_path / source.files[0].name).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the official file"):
        load_dataset(name, data_dir=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_without_tensorflow_datasets_files_are_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "cifar10", small_cifar(tmp_path, cifar.CIFAR10))
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    for name, file in (("cifar10", "cifar-10-binary.tar.gz"), ("mnist", mnist.MNIST.files[0].name)):
        with pytest.raises(UserError, match=f"is not installed: .* folder with {file}"):
            load_dataset(name)
        assert not is_at_hand(name)
    assert len(load_dataset("cifar10", data_dir=tmp_path).test) == 4


@pytest.mark.slow
def test_the_official_files_of_mnist_are_prepared_for_stock_tensorflow_datasets(
    mnist_dir, tmp_path, monkeypatch
):
    """70,000 real images; the small files of `test_tfds_cache.py` are for the rest."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepared = load_dataset("mnist", data_dir=mnist_dir)
    direct = mnist.MNIST.load(mnist.MNIST.find(mnist_dir))
    for ours, theirs in ((prepared.train, direct.train), (prepared.test, direct.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert len(tfds.builder("mnist", data_dir=tmp_path).as_data_source("test")) == 10_000


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


def test_a_data_folder_that_is_not_there_is_told_whatever_the_set(tmp_path):
    for name in ("digits", f"folder:{tmp_path}", "npz:x.npz"):
        with pytest.raises(UserError, match="there is no folder .*gone: .*--data-dir"):
            load_dataset(name, data_dir=tmp_path / "gone")


def test_unpacked_files_need_no_cache(tmp_path, monkeypatch):
    files = tmp_path / "files"
    monkeypatch.setitem(SOURCES, "kmnist", small_mnist(files, mnist.KMNIST))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    packed = load_dataset("kmnist", data_dir=files)
    for path in files.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_dataset("kmnist", data_dir=files).fingerprints == packed.fingerprints


def test_a_wrong_part_is_told_with_the_right_ones():
    with pytest.raises(UserError, match="choose emnist/ and one of byclass, .*, letters,"):
        load_dataset("emnist/letter")
