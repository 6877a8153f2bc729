"""The MNIST-like sets: the official table, and which way a set is read."""

import importlib.util

import numpy as np
import pytest
import tensorflow_datasets as tfds

from train.data.formats import tfds_cache
from train.data.sources import mnist
from train.data.sources.idx_source import FILE_NAMES
from train.system.errors import UserError

SOURCES = pytest.mark.parametrize("source", mnist.SOURCES.values(), ids=mnist.SOURCES)


@pytest.fixture
def no_tfds(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow_datasets" else find_spec(name, *rest),
    )


@SOURCES
def test_the_table_equals_the_one_in_tensorflow_datasets(source):
    stock = tfds.builder_cls(source.name)
    registered = {
        url: (int(info.size), info.checksum, info.filename) for url, info in stock.url_infos.items()
    }
    assert registered == {
        source.url + name: (fingerprint.size, fingerprint.sha256, name)
        for name, fingerprint in source.fingerprints.items()
    }
    assert source.url == stock.URL
    assert set(source.fingerprints) == set(FILE_NAMES)


@SOURCES
def test_the_class_names_equal_those_in_tensorflow_datasets(source, tmp_path):
    builder = tfds.builder_cls(source.name)(data_dir=tmp_path)
    assert tuple(builder.info.features["label"].names) == source.class_names


def test_both_ways_give_the_same_arrays(make_source, tmp_path, monkeypatch, request):
    source, folder = make_source()
    prepared = mnist.load(source, data_dir=folder, cache_dir=tmp_path / "cache")
    request.getfixturevalue("no_tfds")
    direct = mnist.load(source, data_dir=folder, cache_dir=tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    for ours, theirs in ((prepared.train, direct.train), (prepared.test, direct.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.images.dtype == theirs.images.dtype
        assert ours.labels.dtype == theirs.labels.dtype
    assert prepared.class_names == direct.class_names


@pytest.mark.usefixtures("no_tfds")
def test_without_tensorflow_datasets_checksums_count_as_well(make_source):
    source, folder = make_source()
    (folder / FILE_NAMES[0]).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the official file"):
        mnist.load(source, data_dir=folder)


@pytest.mark.usefixtures("no_tfds")
def test_without_tensorflow_datasets_and_files(make_source):
    source, _ = make_source()
    with pytest.raises(UserError, match="tensorflow-datasets, which is not installed.*--data-dir"):
        mnist.load(source)


def test_the_second_time_needs_neither_files_nor_network(make_source, tmp_path):
    source, folder = make_source()
    first = mnist.load(source, data_dir=folder, cache_dir=tmp_path / "cache")
    again = mnist.load(source, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.train.images, again.train.images)


def test_a_folder_that_is_named_is_looked_at_the_second_time_too(make_source, tmp_path):
    source, folder = make_source()
    cache = tmp_path / "cache"
    mnist.load(source, data_dir=folder, cache_dir=cache)
    with pytest.raises(UserError, match="gone"):
        mnist.load(source, data_dir=tmp_path / "gone", cache_dir=cache)
    (folder / FILE_NAMES[0]).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the official file"):
        mnist.load(source, data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize("variable", [True, False])
def test_the_default_cache(make_source, tmp_path, monkeypatch, variable):
    source, folder = make_source()
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "named"))
    else:
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    mnist.load(source, data_dir=folder)
    cache = tmp_path / ("named" if variable else "tensorflow_datasets")
    assert tfds_cache.is_prepared(source, cache)


def test_the_official_files(mnist_dir, tmp_path):
    """The one test on the real files: prepared by us, found and read by stock tfds."""
    dataset = mnist.load(mnist.MNIST, data_dir=mnist_dir, cache_dir=tmp_path)
    assert dataset.image_shape == (28, 28, 1)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.train.labels[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert dataset.test.labels[:6].tolist() == [7, 2, 1, 0, 4, 1]

    direct = mnist.MNIST.read(mnist.MNIST.find(mnist_dir))
    np.testing.assert_array_equal(dataset.train.images, direct.train.images)
    np.testing.assert_array_equal(dataset.train.labels, direct.train.labels)
    np.testing.assert_array_equal(dataset.test.images, direct.test.images)
    np.testing.assert_array_equal(dataset.test.labels, direct.test.labels)

    stock = tfds.builder("mnist", data_dir=tmp_path)
    assert type(stock).__module__.startswith("tensorflow_datasets.")
    assert len(stock.as_data_source("test")) == 10_000


def test_the_official_fashion_files(official_files):
    dataset = mnist.FASHION_MNIST.read(mnist.FASHION_MNIST.find(official_files / "fashion-mnist"))
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert dataset.class_names[dataset.test.labels[0]] == "Ankle boot"
