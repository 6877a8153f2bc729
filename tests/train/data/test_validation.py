"""The examples that are set aside to choose by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data import Dataset, Split, fold, hold_out
from train.data.made import multi_mnist
from train.system.errors import UserError


def split(labels) -> Split:
    """Images that show their own number."""
    labels = np.asarray(labels, np.int32)
    images = np.arange(len(labels)).astype(np.uint8)[:, None, None, None]
    return Split(np.broadcast_to(images, (len(labels), 2, 2, 1)), labels)


def dataset(labels, validation=None) -> Dataset:
    return Dataset("toy", split(labels), split([0]), ("a", "b", "c"), validation)


def numbers(examples: Split) -> list[int]:
    return examples.images[:, 0, 0, 0].tolist()


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(2, 5))
def test_folds_hold_each_image_once_and_their_share_of_each_class(labels, count):
    labels = np.array([*range(3)] * count + labels, np.int32)
    whole = dataset(labels)
    folds = [fold(whole, number, count) for number in range(count)]
    held = [number for part in folds for number in numbers(part.test)]
    assert sorted(held) == list(range(len(labels)))
    for part in folds:
        assert sorted(numbers(part.test) + numbers(part.train)) == list(range(len(labels)))
        assert part.validation is None
        for label in range(3):
            share = np.sum(labels == label) / count
            assert abs(np.sum(part.test.labels == label) - share) < 1


def test_a_fold_without_a_class_is_refused():
    with pytest.raises(UserError, match="--folds is 3, but toy has a class of 2 training images"):
        fold(dataset([0, 0, 0, 1, 1, 2, 2, 2]), 0, 3)


def test_no_image_is_lost_and_none_is_in_both():
    whole = dataset([0, 1, 0, 1, 2, 0, 1, 2, 0, 0])
    held = hold_out(whole, 4)
    assert numbers(held.validation) == [6, 7, 8, 9]
    assert sorted(numbers(held.train) + numbers(held.validation)) == list(range(10))
    assert numbers(hold_out(whole, 0.4).validation) == numbers(held.validation)
    assert held.test is whole.test


def test_what_is_usual_is_ten_thousand_of_sixty_thousand_else_a_tenth():
    for count, usual in ((60_000, 10_000), (50_000, 5_000), (40, 4), (4, 1)):
        labels = np.arange(count, dtype=np.int32) % 3
        images = np.zeros((count, 1, 1, 1), np.uint8)
        many = Dataset("many", Split(images, labels), Split(images, labels), ("a", "b", "c"))
        held = hold_out(many, None)
        assert (len(held.train), len(held.validation)) == (count - usual, usual)


def test_none_at_all():
    whole = dataset([0, 1, 2], split([0, 1]))
    held = hold_out(whole, 0)
    assert held.validation is None
    assert held.train is whole.train


def test_examples_of_its_own_leave_the_training_split_whole():
    whole = dataset([0, 1, 2], split([2, 1, 0, 1]))
    assert hold_out(whole, None) is whole
    held = hold_out(whole, 0.5)
    assert held.train is whole.train
    assert held.validation.labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"--validation is 5, but toy has 4 validation images"):
        hold_out(whole, 5)


def test_pairs_to_choose_by_are_made_of_other_digits():
    digits = split(np.arange(30) % 3)
    pairs = multi_mnist.make(Dataset("digits", digits, digits, ("a", "b", "c")))
    held = hold_out(pairs, None).limited()
    assert (len(held.train.source), len(held.validation.source)) == (27, 3)
    assert not set(numbers(held.train.source)) & set(numbers(held.validation.source))
    assert len(held.validation) == 3  # one of each digit, as of the test split


@pytest.mark.parametrize(("labels", "amount"), [([0, 1, 2, 0], 2), ([0, 1, 2, 0], 0.9)])
def test_more_than_can_be_spared_is_refused(labels, amount):
    with pytest.raises(UserError, match=rf"--validation is {amount}, .* choose at most 1\."):
        hold_out(dataset(labels), amount)


def test_too_few_images_to_set_any_aside():
    held = hold_out(dataset([0, 1, 2]), None)
    assert (held.validation, len(held.train)) == (None, 3)
    few = Dataset("toy", split([*range(18), 18, 18]), split([0]), tuple("abcdefghijklmnopqrs"))
    held = hold_out(few, None)  # a tenth would be two
    assert (len(held.validation), len(held.train)) == (1, 19)
