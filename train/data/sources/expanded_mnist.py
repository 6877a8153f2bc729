"""MNIST on a larger background: what networks learn from that are measured on affNIST."""

import dataclasses

import numpy as np

from train.data.dataset import Dataset, Examples, Split, stored

NAME = "mnist-40x40"
MARGIN = 6
"""Pixels around a digit of 28x28 in an image of 40x40."""
SEED = 0
"""Decides where the digits are that are measured."""


def make(digits: Dataset) -> Dataset:
    """Lays MNIST on black backgrounds of 40x40.

    S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017, arXiv:1710.09829,
    section 5.1: networks learn from MNIST digits placed at random on a black background of 40x40
    pixels. Training digits are in the middle here: with `max_shift=6` training places them anew
    each time. Test digits, and those that are set aside to choose by, are placed at random, and
    always alike.
    """
    train, test = stored(digits.train), stored(digits.test)
    in_the_middle = np.full((len(train.labels), 2), MARGIN)
    return Dataset(
        NAME, _Centred(*_on_background(train, in_the_middle)), _at_random(test), digits.class_names
    )


class _Centred(Split):
    """Digits in the middle, which training moves."""

    def take(self, images: np.ndarray) -> Split:
        return _Centred(self.images[images], self.labels[images])

    def set_aside(self, images: np.ndarray) -> Split:
        inner = self.images[images, MARGIN:-MARGIN, MARGIN:-MARGIN]
        return _at_random(Split(inner, self.labels[images]))


def with_test(digits: Dataset, name: str, test: Examples) -> Dataset:
    """Gives MNIST on a larger background another test split, and so another name."""
    return dataclasses.replace(make(digits), name=name, test=test)


def _at_random(digits: Split) -> Split:
    # Raw words, which NumPy promises to be the same in every version.
    words = np.random.PCG64(np.random.SeedSequence(SEED)).random_raw(2 * len(digits.labels))
    corners = (words % (2 * MARGIN + 1)).astype(np.int64).reshape(-1, 2)
    return Split(*_on_background(digits, corners))


def _on_background(digits: Split, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Digits on a black background, their upper left pixels at `corners` [n, 2]; their labels."""
    count, height, width, channels = digits.images.shape
    images = np.zeros((count, height + 2 * MARGIN, width + 2 * MARGIN, channels), np.uint8)
    for image, digit, (top, left) in zip(images, digits.images, corners, strict=True):
        image[top : top + height, left : left + width] = digit
    return images, digits.labels
