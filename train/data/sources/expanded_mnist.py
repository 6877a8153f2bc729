"""MNIST on a larger background: what networks learn from that are measured on affNIST."""

import dataclasses

import numpy as np

from train.data.dataset import Dataset, Examples, Split

NAME = "mnist-40x40"
MARGIN = 6
"""Pixels around a digit of 28x28 in an image of 40x40."""
SEED = 0
"""Decides where the test digits are."""


def make(digits: Dataset) -> Dataset:
    """Lays MNIST on black backgrounds of 40x40.

    S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017, arXiv:1710.09829,
    section 5.1: networks learn from MNIST digits placed at random on a black background of 40x40
    pixels. Training digits are in the middle here: with `max_shift=6` training places them anew
    each time. Test digits are placed at random, and always alike.
    """
    # Raw words, which NumPy promises to be the same in every version.
    words = np.random.PCG64(np.random.SeedSequence(SEED)).random_raw(2 * len(digits.test))
    corners = (words % (2 * MARGIN + 1)).astype(np.int64).reshape(-1, 2)
    middle = np.full((len(digits.train), 2), MARGIN)
    train, test = _on_background(digits.train, middle), _on_background(digits.test, corners)
    return Dataset(NAME, train, test, digits.class_names)


def with_test(digits: Dataset, name: str, test: Examples) -> Dataset:
    """Gives MNIST on a larger background another test split, and so another name."""
    return dataclasses.replace(make(digits), name=name, test=test)


def _on_background(digits: Examples, corners: np.ndarray) -> Split:
    """The digits on a black background, their upper left pixels at `corners` [n, 2]."""
    batch = digits.gather(np.arange(len(digits)))
    count, height, width, channels = batch.images.shape
    images = np.zeros((count, height + 2 * MARGIN, width + 2 * MARGIN, channels), np.uint8)
    for image, digit, (top, left) in zip(images, batch.images, corners, strict=True):
        image[top : top + height, left : left + width] = digit
    return Split(images, batch.labels)
