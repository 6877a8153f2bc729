"""What `Split` and `Dataset` hold and refuse."""

import numpy as np
import pytest

from train.data import Dataset, Split
from train.data.made import multi_mnist
from train.system.errors import UserError


def images(n: int = 4, height: int = 3) -> np.ndarray:
    return np.zeros((n, height, 2, 1), np.uint8)


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def dataset(train_labels: np.ndarray, test_labels: np.ndarray) -> Dataset:
    return Dataset(
        name="toy",
        train=Split(images(len(train_labels)), train_labels),
        test=Split(images(len(test_labels)), test_labels),
        class_names=("a", "b", "c"),
    )


def test_shapes_and_lengths():
    toy = dataset(labels(0, 1, 2, 2), labels(1))
    assert toy.image_shape == (3, 2, 1)
    assert toy.num_classes == 3
    assert (len(toy.train), len(toy.test)) == (4, 1)


@pytest.mark.parametrize(
    ("images_given", "labels_given", "message"),
    [
        (images().astype(np.float32), labels(0, 0, 0, 0), "images are float32"),
        (images()[..., 0], labels(0, 0, 0, 0), r"uint8 \[4, 3, 2\]"),
        (images(), labels(0, 0, 0, 0).astype(np.int64), "labels are int64"),
        (images(), labels(0, 0, 0, 0)[:, None], r"int32 \[4, 1\]"),
        (images(), labels(0, 0, 0), "4 images but 3 labels"),
        (images(0), labels(), "at least one example"),
    ],
)
def test_split_refuses(images_given, labels_given, message):
    with pytest.raises(UserError, match=message):
        Split(images_given, labels_given)


def test_a_set_in_the_order_of_its_classes_is_limited_to_examples_of_each():
    toy = dataset(labels(0, 0, 0, 0, 1, 1, 2, 2), labels(0, 0, 0, 1, 1, 1, 2, 2, 2))
    limited = toy.limited(train=4, test=3)
    np.testing.assert_array_equal(limited.train.labels, [0, 0, 1, 2])
    np.testing.assert_array_equal(limited.test.labels, [0, 1, 2])
    np.testing.assert_array_equal(toy.test.some(3).labels, [0, 1, 2])
    assert len(toy.test.some(100).labels) == 9
    assert toy.limited(train=4).test is toy.test


@pytest.mark.parametrize("count", [0, -1, 5])
def test_there_are_only_so_many_training_examples(count):
    with pytest.raises(UserError, match=rf"--train-examples is {count}, .* choose 1 to 4\."):
        dataset(labels(0, 1, 2, 2), labels(1)).limited(train=count)


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_label_out_of_range_is_named(wrong):
    with pytest.raises(UserError, match=f"label {wrong} of test example 1 of toy.*from 0 to 2"):
        dataset(labels(0, 2), labels(2, wrong))
    with pytest.raises(UserError, match=f"label {wrong} of training example 0"):
        dataset(labels(wrong), labels(0))


def test_image_shapes_of_the_splits_must_agree():
    with pytest.raises(UserError, match="same shape"):
        Dataset("toy", Split(images(1), labels(0)), Split(images(1, 4), labels(0)), ("a", "b"))


def test_a_single_class_is_refused():
    with pytest.raises(UserError, match="toy has the class a alone"):
        Dataset("toy", Split(images(1), labels(0)), Split(images(1), labels(0)), ("a",))


def test_fingerprints_tell_splits_apart():
    toy = dataset(labels(0, 1, 2, 2), labels(1, 0))
    same = dataset(labels(0, 1, 2, 2), labels(1, 0))
    other = dataset(labels(0, 1, 2, 1), labels(1, 0))
    assert toy.fingerprints == same.fingerprints
    assert toy.fingerprints["train"] != other.fingerprints["train"]
    assert toy.fingerprints["test"] == other.fingerprints["test"]
    pairs = multi_mnist.make(toy).fingerprints
    assert len({*pairs.values(), *toy.fingerprints.values()}) == 4
