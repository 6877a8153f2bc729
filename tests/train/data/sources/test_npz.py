"""Arrays of the user's own in a `.npz` file."""

import zipfile

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


@pytest.mark.parametrize("split", ["train_images", "test_images"])
@pytest.mark.parametrize(("brightest", "is_told"), [(1, True), (16, True), (64, False)])
def test_images_that_are_almost_black_are_told(tmp_path, capsys, split, brightest, is_told):
    images = arrays()[split]
    dark = (images // 255 + 1) * np.uint8(brightest)
    np.savez(tmp_path / "x.npz", **arrays(**{split: np.minimum(dark, brightest)}))
    load_dataset(f"npz:{tmp_path / 'x.npz'}")
    told = f"note: no value of {split} in {tmp_path / 'x.npz'} is above {brightest}, where"
    assert (told in capsys.readouterr().err) == is_told


def test_copies_of_training_images_are_told(tmp_path, capsys):
    given = arrays(val_images=random(3, 5, 4, 3, seed=2), val_labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "x.npz", **given)
    load_dataset(f"npz:{tmp_path / 'x.npz'}")
    assert "note" not in capsys.readouterr().err
    given["test_images"][1] = given["train_images"][3]
    given["test_images"][0] = given["val_images"][1] = given["train_images"][4]
    np.savez(tmp_path / "x.npz", **given)
    load_dataset(f"npz:{tmp_path / 'x.npz'}")
    told = capsys.readouterr().err
    assert "note: test images that are training images, too: 2 of 2;" in told
    assert "note: validation images that are training images, too: 1 of 3;" in told
    assert told.count("note") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": random(6, 5, 4, 3) / 255}, "train_images as float64 .* save them as ui"),
        ({"test_images": random(2, 5)}, "test_images as uint8 \\[2, 5\\]"),
        ({"train_labels": np.arange(6.0)}, "train_labels as float64 \\[6\\]: save them as integ"),
        ({"train_labels": 3 * np.eye(6, dtype=int)}, "train_labels as int64 \\[6, 6\\]"),
        ({"test_labels": np.array([-1, 0])}, "test images of class -1, of which it has no trai"),
        ({"test_labels": np.array([2**40, 0])}, "class 1099511627776, of which it has no trai"),
        ({"test_labels": np.array([10**9, 0])}, "class 1000000000, of which it has no training"),
        ({"test_labels": np.array([1, 3])}, "test images of class 3, of which it has no training"),
        (
            {"train_labels": np.array([0, 1, 2, 0, 1, 10**9])},
            "labels from 0 to 1000000000, 4 different ones, where .* from 0 on without a gap",
        ),
        ({"train_labels": np.arange(5)}, "6 images but 5 labels"),
        (
            {"test_labels": np.eye(3, dtype=int)[:2]},
            "but test labels \\[n, 3\\]: save labels of one",
        ),
        ({"val_images": random(2, 5, 4, 3)}, "holds val_images, but not val_labels: save both"),
        ({"test_images": random(2, 4, 4, 3)}, "all splits need the same shape"),
        (
            {"val_images": random(2, 5, 4, 3), "val_labels": np.array([0, 4])},
            "validation images of class 4, of which it has no training",
        ),
        (
            {"train_images": random(0, 5, 4, 3), "train_labels": np.arange(0)},
            "class 0, 2, of which",
        ),
        ({"train_labels": np.array([{}] * 6)}, "mine.npz, train_labels.npy, holds objects"),
    ],
)
def test_what_is_refused(tmp_path, changes, message):
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, **arrays(**changes))
    with pytest.raises(UserError, match=message):
        npz.load(path, name="npz:mine.npz")


def save(tmp_path, **changes) -> str:
    np.savez(tmp_path / "mine.npz", **arrays(**changes))
    return f"npz:{tmp_path / 'mine.npz'}"


def test_channels_that_come_first_are_told_and_taken_so(tmp_path):
    images = random(6, 5, 7, 3)
    given = {"train_images": np.moveaxis(images, -1, 1), "test_images": random(2, 3, 5, 7)}
    name = save(tmp_path, **given)
    with pytest.raises(UserError, match=r"\[6, 3, 5, 7\], .* 7 channels: .*--image-axes NCHW"):
        load_dataset(name)
    dataset = load_dataset(name, layout=npz.Layout("NCHW"))
    np.testing.assert_array_equal(dataset.train.images, images)
    assert load_dataset(name, layout=npz.Layout("NHWC")).image_shape == (3, 5, 7)


def test_scans_of_three_dimensions_are_told(tmp_path):
    name = save(tmp_path, train_images=random(6, 8, 8, 8), test_images=random(2, 8, 8, 8))
    with pytest.raises(UserError, match="are images of 8 channels: if these are scans of three"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("values", "way_out", "names"),
    [
        ([1, 2, 3], r"from 1 on \(--labels-from 1\), or as they are", "123"),
        ([1, 2, 3], "--labels-from values", "123"),
        ([-1, 0, 1], "from -1 on", ["-1", "0", "1"]),
        ([0, 450, 900], r"take them as they are, .*--labels-from values", ["0", "450", "900"]),
    ],
)
def test_labels_that_are_no_numbers_from_0_on(tmp_path, values, way_out, names):
    values = np.array(values, np.int16)
    given = {"train_labels": values[np.arange(6) % 3], "test_labels": values[[2, 0]]}
    name = save(tmp_path, **given)
    told = f"labels from {values[0]} to {values[2]}, 3 different ones, .*{way_out}"
    with pytest.raises(UserError, match=told):
        load_dataset(name)
    first = "values" if "values" in way_out else str(values[0])
    dataset = load_dataset(name, layout=npz.Layout(labels=first))
    assert dataset.class_names == tuple(names)
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.test.labels.tolist() == [2, 0]


def test_names_of_classes_may_be_in_the_file(tmp_path):
    names = np.array(["cat", "dog", "fox", "owl"])
    dataset = load_dataset(save(tmp_path, class_names=names))
    assert dataset.class_names == ("cat", "dog", "fox", "owl")  # of an owl there is no image
    assert dataset.test.labels.tolist() == [2, 0]
    with pytest.raises(UserError, match="labels from 0 to 2, 3 different ones"):
        load_dataset(save(tmp_path, class_names=names[:2]))
    with pytest.raises(UserError, match="class_names as int64"):
        load_dataset(save(tmp_path, class_names=np.arange(3)))


def test_any_number_of_classes_may_be_present(tmp_path):
    present = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    given = {"train_labels": present, "test_labels": present[:2].astype(bool)}
    dataset = load_dataset(save(tmp_path, **given))
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.train.labels_per_image is None
    assert dataset.train.labels.dtype == bool
    np.testing.assert_array_equal(dataset.train.labels, present)
    np.testing.assert_array_equal(dataset.limited(train=3).train.labels, present[:3])
    with pytest.raises(UserError, match="labels of 3 classes for training, but others elsewhere"):
        load_dataset(save(tmp_path, **given | {"test_labels": present[:2, :2]}))
    with pytest.raises(UserError, match=r"train_labels as int64 \[6, 3\]: .*of 0 and 1"):
        load_dataset(save(tmp_path, **given | {"train_labels": 2 * present}))


def test_one_hot_labels_are_of_one_class_each(tmp_path):
    given = {"train_labels": np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, 2]]}
    dataset = load_dataset(save(tmp_path, **given, test_labels=np.eye(3, dtype=int)[[2, 0]]))
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (dataset.test.labels.tolist(), dataset.test.labels_per_image) == ([2, 0], 1)


def test_labels_that_number_no_classes_have_no_first_number(tmp_path):
    path = save(tmp_path, train_labels=np.eye(3, dtype=np.uint8)[[0, 1, 2] * 2])
    with pytest.raises(UserError, match=r"--labels-from is 1, but .* has labels \[n, 3\], which"):
        load_dataset(path, layout=npz.Layout(labels="1"))


def test_a_single_class_is_told(tmp_path):
    labels = {"train_labels": np.zeros(6, int), "test_labels": np.zeros(2, int)}
    with pytest.raises(UserError, match="has the class 0 alone"):
        load_dataset(save(tmp_path, **labels))


def test_a_layout_that_makes_no_sense(tmp_path):
    with pytest.raises(UserError, match="--labels-from is one, but must be the number"):
        npz.Layout(labels="one")
    with pytest.raises(UserError, match="digits is none: leave them out"):
        load_dataset("digits", layout=npz.Layout("NCHW"))


def test_a_header_that_numpy_reads_is_read(tmp_path):
    name = save(tmp_path)
    with zipfile.ZipFile(tmp_path / "mine.npz") as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        for each, content in members.items():
            start, header, rest = content[:10], content[10:128], content[128:]
            archive.writestr(each, start + header.replace(b", ", b",").rjust(118) + rest)
    np.testing.assert_array_equal(load_dataset(name).train.images, arrays()["train_images"])


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
