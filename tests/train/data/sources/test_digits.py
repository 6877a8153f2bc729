"""The embedded digits and their fixed test split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from train.data.sources import digits
from train.system.errors import UserError


def test_every_original_image_is_in_exactly_one_split():
    dataset = digits.load()
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.class_names == tuple("0123456789")

    original = load_digits()
    expected = sorted(
        (bytes(np.round(image.ravel() * 255 / 16).astype(np.uint8)), int(label))
        for image, label in zip(original.images, original.target, strict=True)
    )
    ours = sorted(
        (image.tobytes(), int(label))
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert ours == expected


def test_values_use_the_whole_byte():
    train = digits.load().train
    assert set(np.unique(train.images)) == {round(value * 255 / 16) for value in range(17)}


def test_the_split_is_stratified_and_a_fifth():
    dataset = digits.load()
    in_train, in_test = (np.bincount(s.labels, minlength=10) for s in (dataset.train, dataset.test))
    assert np.abs(in_test / (in_test + in_train) - 0.2).max() < 0.003


def test_the_split_is_this_rule(monkeypatch):
    labels = np.array([7, 7, 1, 7, 1, 7, 1, 1, 1, 7, 7, 7, 7], np.int32)
    images = np.arange(13.0)[:, None, None].repeat(8, 1).repeat(8, 2)
    monkeypatch.setattr("train.data.sources.digits._original", lambda: (images, labels))
    chosen = digits.load().test.images[:, 0, 0, 0]
    assert chosen.tolist() == [round(value * 255 / 16) for value in (3, 6, 12)]


def test_without_scikit_learn_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="scikit-learn, which is not installed"):
        digits.load()
