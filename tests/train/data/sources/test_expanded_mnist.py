"""MNIST on a larger background."""

import numpy as np
import pytest

from train.data import Dataset, Split, hold_out
from train.data.balance import of_each_class
from train.data.sources.expanded_mnist import make


@pytest.fixture
def digits() -> Dataset:
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            rng.integers(1, 256, (size, 5, 4, 1), dtype=np.uint8),
            rng.integers(0, 10, size, dtype=np.int32),
        )

    return Dataset("mnist", split(6), split(3_000), tuple("0123456789"))


def test_training_digits_are_in_the_middle(digits):
    train = make(digits).train
    assert train.image_shape == (17, 16, 1)
    np.testing.assert_array_equal(train.images[:, 6:11, 6:10], digits.train.images)
    assert train.images.astype(int).sum() == digits.train.images.astype(int).sum()
    np.testing.assert_array_equal(train.labels, digits.train.labels)


def test_digits_to_choose_by_are_placed_as_those_of_the_test_are(digits):
    held = hold_out(make(digits), 2)
    numbers = of_each_class(digits.train.labels, 2, last=True, leave_one=True)
    left = np.delete(np.arange(6), numbers)
    np.testing.assert_array_equal(held.train.images[:, 6:11, 6:10], digits.train.images[left])
    same = Dataset("mnist", digits.train, digits.train.take(numbers), digits.class_names)
    np.testing.assert_array_equal(held.validation.images, make(same).test.images)
    np.testing.assert_array_equal(held.validation.labels, digits.train.labels[numbers])


def test_test_digits_are_placed_at_random_and_always_alike(digits):
    test = make(digits).test
    np.testing.assert_array_equal(test.images, make(digits).test.images)
    ink = test.images[..., 0] > 0
    tops, lefts = ink.any(axis=2).argmax(axis=1), ink.any(axis=1).argmax(axis=1)
    for digit, image, top, left in zip(digits.test.images, test.images, tops, lefts, strict=True):
        np.testing.assert_array_equal(image[top : top + 5, left : left + 4], digit)
    for places in (tops, lefts):
        counts = np.bincount(places, minlength=13)
        assert len(counts) == 13  # -6 to 6 pixels
        assert np.abs(counts / 3_000 - 1 / 13).max() < 0.02  # 4 deviations
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.08


def test_the_name_tells_what_it_is(digits):
    made = make(digits)
    assert (made.name, made.class_names) == ("mnist-40x40", digits.class_names)
