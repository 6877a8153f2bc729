"""Arrays of the user's own in a `.npz` file."""

import numpy as np
import pytest

from tests.train.data.small_files import random
from train.data import load_dataset
from train.data.sources import npz
from train.system.errors import UserError


def arrays(**changes):
    return {
        "train_images": random(6, 5, 4, 3),
        "train_labels": np.arange(6) % 3,
        "test_images": random(2, 5, 4, 3, seed=1),
        "test_labels": np.array([2, 0]),
    } | changes


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_saves(tmp_path, save):
    save(tmp_path / "mine.npz", **arrays())
    name = f"npz:{tmp_path / 'mine.npz'}"
    dataset = load_dataset(name)
    assert dataset.name == name
    assert dataset.image_shape == (5, 4, 3)
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.train.images, random(6, 5, 4, 3))
    assert dataset.test.labels.tolist() == [2, 0]


def test_grey_images_without_a_channel_and_the_names_of_keras(tmp_path):
    given = arrays(train_images=random(6, 5, 4), test_images=random(2, 5, 4))
    given = dict(zip(("x_train", "y_train", "x_test", "y_test"), given.values(), strict=True))
    given["y_train"] = given["y_train"][:, None].astype(np.uint8)
    np.savez(tmp_path / "keras.npz", **given)
    dataset = load_dataset(f"npz:{tmp_path / 'keras.npz'}")
    assert dataset.image_shape == (5, 4, 1)
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_images_to_choose_by_are_the_files_own(tmp_path):
    given = arrays(val_images=random(3, 5, 4, 3, seed=2), val_labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "x.npz", **given)
    dataset = load_dataset(f"npz:{tmp_path / 'x.npz'}")
    np.testing.assert_array_equal(dataset.validation.images, random(3, 5, 4, 3, seed=2))
    assert dataset.validation.labels.tolist() == [0, 1, 1]
    assert len(dataset.train) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": random(6, 5, 4, 3) / 255}, "train_images as float64 .* save them as ui"),
        ({"test_images": random(2, 5)}, "test_images as uint8 \\[2, 5\\]"),
        ({"train_labels": np.arange(6.0)}, "train_labels as float64 \\[6\\]: save them as integ"),
        ({"train_labels": np.eye(6, dtype=int)}, "train_labels as int64 \\[6, 6\\]"),
        ({"test_labels": np.array([-1, 0])}, "labels from -1 to 0 in test_labels"),
        ({"test_labels": np.array([2**40, 0])}, "labels from 0 to 1099511627776"),
        ({"test_labels": np.array([10**9, 0])}, "class 1000000000, of which it has no training"),
        ({"test_labels": np.array([1, 3])}, "test images of class 3, of which it has no training"),
        (
            {"train_labels": np.array([0, 1, 2, 0, 1, 10**9])},
            "label 1000000000, but only 6 training images",
        ),
        ({"train_labels": np.arange(5)}, "6 images but 5 labels"),
        ({"test_images": random(2, 4, 4, 3)}, "all splits need the same shape"),
        (
            {"val_images": random(2, 5, 4, 3), "val_labels": np.array([0, 4])},
            "validation images of class 4, of which it has no training",
        ),
        ({"train_images": random(0, 5, 4, 3), "train_labels": np.arange(0)}, "holds no pixel"),
        ({"train_labels": np.array([{}] * 6)}, "mine.npz, train_labels.npy, holds objects"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, **arrays(**changes))
    with pytest.raises(UserError, match=message):
        npz.load(path, name="npz:mine.npz")


def test_arrays_of_other_names_are_told_with_the_right_ones(tmp_path):
    np.savez(tmp_path / "mine.npz", images=random(3))
    with pytest.raises(UserError, match="holds 'images': save the arrays train_images, .*x_train"):
        load_dataset(f"npz:{tmp_path / 'mine.npz'}")


def test_a_file_that_is_missing_or_no_archive(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_dataset(f"npz:{tmp_path / 'mine.npz'}")
    np.save(tmp_path / "one.npy", random(3))
    with pytest.raises(UserError, match="File is not a zip file"):
        load_dataset(f"npz:{tmp_path / 'one.npy'}")
