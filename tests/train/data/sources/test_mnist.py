"""The sets in MNIST's format, from small files and from the official ones."""

import gzip

import numpy as np
import pytest

from tests.train.data.small_files import idx_bytes, npz_bytes, small_kuzushiji_49, small_mnist
from train.data import load_dataset
from train.data.sources.mnist import FASHION_MNIST, KMNIST, MNIST, parse_idx
from train.system.errors import UserError


def test_files_of_another_set_are_told_packed_or_not(official_files, tmp_path):
    """Files of these sets have the same names."""
    clothes = official_files / "fashion-mnist"
    message = (
        "(is not of mnist, but|holds) the t[a-z]+ images of fashion_mnist.*: choose --dataset fas"
    )
    with pytest.raises(UserError, match=message):
        load_dataset("mnist", data_dir=clothes)
    for file in FASHION_MNIST.files:
        unpacked = gzip.decompress((clothes / file.name).read_bytes())
        (tmp_path / file.unpacked).write_bytes(unpacked)
    for name in ("mnist", "kmnist"):
        with pytest.raises(
            UserError, match=f"of fashion_mnist and not of {name}: choose --dataset"
        ):
            load_dataset(name, data_dir=tmp_path)
    assert len(load_dataset("fashion_mnist", data_dir=tmp_path).test) == 10_000


def test_reads_both_splits(make_source):
    source, folder = make_source(train_size=30, test_size=12)
    dataset = source.load(source.find(folder))
    assert (len(dataset.train), len(dataset.test)) == (30, 12)
    assert dataset.image_shape == source.image_shape == (28, 28, 1)
    assert dataset.test.labels.tolist() == [*range(10), 0, 1]
    written = np.random.default_rng(1).integers(0, 256, (30, 28, 28, 1), dtype=np.uint8)
    np.testing.assert_array_equal(dataset.train.images, written)


def test_unpacked_files_serve_as_well(make_source):
    source, folder = make_source()
    packed = source.load(source.find(folder))
    for path in source.find(folder):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    unpacked = source.load(source.find(folder))
    np.testing.assert_array_equal(unpacked.test.images, packed.test.images)
    path = source.find(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="ubyte cannot be read as bytes in the IDX format"):
        source.load(source.find(folder))
    path.write_bytes(b"no IDX")
    with pytest.raises(UserError, match="it begins with 6e 6f 20 49"):
        source.load(source.find(folder))


def test_kmnist_and_kuzushiji_49_are_read_from_files_for_numpy(tmp_path):
    packed = small_mnist(tmp_path / "packed", KMNIST)
    expected = packed.load(packed.find(tmp_path / "packed"))
    folder = tmp_path / "numpy"
    folder.mkdir()
    for path, file in zip(packed.find(tmp_path / "packed"), KMNIST.files, strict=True):
        array = parse_idx(
            gzip.decompress(path.read_bytes()), ndim=3 if "images" in path.name else 1
        )
        (folder / file.other.name).write_bytes(npz_bytes(array))
    paths = KMNIST.find(folder)
    assert [path.name for path in paths[1::2]] == [
        "kmnist-train-labels.npz",
        "kmnist-test-labels.npz",
    ]
    found = load_dataset("kmnist", data_dir=folder)
    for ours, theirs in ((found.train, expected.train), (found.test, expected.test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    paths[1].write_bytes(npz_bytes(np.zeros(30)))
    with pytest.raises(
        UserError, match=r"kmnist-train-labels.npz holds float64 \[30\], expected ui"
    ):
        load_dataset("kmnist", data_dir=folder)
    source = small_kuzushiji_49(tmp_path / "k49")
    dataset = source.load(source.find(tmp_path / "k49"))
    assert dataset.num_classes == 49
    assert [dataset.class_names[i] for i in dataset.test.labels[[0, 5, 48]]] == [
        "a",
        "ka",
        "iteration",
    ]


def test_labels_of_another_set(make_source):
    source, folder = make_source(largest_label=10)
    with pytest.raises(UserError, match="label 10 of training example 10 of mnist is out of range"):
        source.load(source.find(folder))


def test_files_that_do_not_fit_each_other(make_source):
    source, folder = make_source()
    paths = source.find(folder)
    paths[-1].write_bytes(gzip.compress(idx_bytes(np.zeros(5))))
    with pytest.raises(UserError, match="12 images but 5 labels"):
        source.load(paths)


def test_the_official_files(official_files):
    dataset = MNIST.load(MNIST.find(official_files / "mnist"))
    assert dataset.image_shape == (28, 28, 1)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.train.labels[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert dataset.test.labels[:6].tolist() == [7, 2, 1, 0, 4, 1]
    dataset = FASHION_MNIST.load(FASHION_MNIST.find(official_files / "fashion-mnist"))
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert dataset.class_names[dataset.test.labels[0]] == "Ankle boot"
