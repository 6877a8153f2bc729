"""The images of a check: real ones cut to size, and inputs that break careless code."""

from pathlib import Path

import numpy as np

from parity.check.pairs import Pair
from train.data import Split, load_dataset, stored
from train.system.errors import UserError

KINDS = ("images", "zeros", "constants", "1e-20", "1e4")
"""Ordinary images; nothing; a constant for each image; and images of up to 1e-20 and 1e4."""


def load_images(data_dir: Path | None, seed: int) -> tuple[str, Split]:
    """The training images of MNIST where its files are, of the embedded digits otherwise.

    Args:
        data_dir: the folder of MNIST's official files, or None.
        seed: of the order of the images.

    Returns:
        The name of the data set and its training split.

    Raises:
        UserError: the files cannot be read.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"there is no folder {data_dir}: name the one with MNIST's official files.")
    name = "digits" if data_dir is None else "mnist"
    split = stored(load_dataset(name, data_dir=data_dir).train)
    order = np.random.default_rng(seed).permutation(len(split))
    return name, Split(split.images[order], split.labels[order])


def cut_to_size(split: Split, image_shape: tuple[int, int, int]) -> Split:
    """Images of another size: of every row and column the nearest is taken.

    Args:
        split: images uint8 `[n, h, w, 1]`.
        image_shape: `(height, width, channels)` wanted. Channel `c` of image `n` shows the image
            `n + c`; the label is that of the first channel.
    """
    height, width, channels = image_shape
    rows, columns = _nearest(split.images.shape[1], height), _nearest(split.images.shape[2], width)
    small = split.images[:, rows][:, :, columns, 0]
    layers = [np.roll(small, -channel, axis=0) for channel in range(channels)]
    return Split(np.stack(layers, axis=-1), split.labels)


def of_kind(kind: str, images: np.ndarray, pair: Pair) -> np.ndarray:
    """Images as the networks see them.

    Args:
        kind: one of `KINDS`. Only ordinary images are normalised as in training.
        images: uint8 `[B, H, W, C]`.
        pair: the networks, for dtype and normalisation.

    Returns:
        `[B, H, W, C]` in the pair's dtype.
    """
    unit = images.astype(np.float64) / 255
    batch = len(images)
    if kind == "images":
        data = pair.objective.data
        values = (unit - data.input_mean) / data.input_std
    elif kind == "zeros":
        values = np.zeros_like(unit)
    elif kind == "constants":
        values = np.ones_like(unit) * (np.arange(1, batch + 1) / batch)[:, None, None, None]
    else:
        values = unit * float(kind)
    return values.astype(pair.dtype)


def _nearest(size: int, wanted: int) -> np.ndarray:
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
