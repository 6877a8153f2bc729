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
    """MNIST on black backgrounds of 40x40.

    S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017, arXiv:1710.09829,
    section 5.1: networks learn from MNIST digits placed at random on a black background of 40x40
    pixels. Training digits are in the middle here: with `max_shift=6` training places them anew
    each time. Test digits are placed at random, and always alike.
    """
    return Dataset(
        NAME, centred(digits.train), placed(digits.test, SEED), class_names=digits.class_names
    )


def centred(digits: Examples) -> Split:
    """The digits in the middle of a black background, 6 pixels on each side."""
    return _on_background(digits, np.zeros((len(digits), 2), np.int64))


def placed(digits: Examples, seed: int) -> Split:
    """The digits placed at random on a black background, in fixed places for a seed."""
    # Raw words, which NumPy promises to be the same in every version.
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(2 * len(digits))
    places = (words % (2 * MARGIN + 1)).astype(np.int64).reshape(-1, 2)
    return _on_background(digits, places - MARGIN)


def _on_background(digits: Examples, shifts: np.ndarray) -> Split:
    """The digits on a black background, shifted from the middle by pixels [n, 2]."""
    batch = digits.gather(np.arange(len(digits)))
    count, height, width, channels = batch.images.shape
    images = np.zeros((count, height + 2 * MARGIN, width + 2 * MARGIN, channels), np.uint8)
    for image, digit, (top, left) in zip(images, batch.images, shifts + MARGIN, strict=True):
        image[top : top + height, left : left + width] = digit
    return Split(images, batch.labels)


def with_test(digits: Dataset, name: str, test: Examples) -> Dataset:
    """What is learned from MNIST on a larger background and measured on something else."""
    return dataclasses.replace(make(digits), name=name, test=test)
