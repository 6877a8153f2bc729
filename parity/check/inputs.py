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

    That is the name of the data set and its training split, in an order that the seed decides.
    A UserError if the files cannot be read.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"there is no folder {data_dir}: name the one with MNIST's official files.")
    name = "digits" if data_dir is None else "mnist"
    split = stored(load_dataset(name, data_dir=data_dir).train)
    order = np.random.default_rng(seed).permutation(len(split))
    return name, Split(split.images[order], split.labels[order])


def cut_to_size(split: Split, image_shape: tuple[int, int, int]) -> Split:
    """Images uint8 `[n, h, w, 1]` as `(height, width, channels)`: the nearest rows and columns.

    Channel `c` of image `n` shows the image `n + c`; the label is that of the first channel.
    """
    height, width, channels = image_shape
    rows, columns = _nearest(split.images.shape[1], height), _nearest(split.images.shape[2], width)
    small = split.images[:, rows][:, :, columns, 0]
    layers = [np.roll(small, -channel, axis=0) for channel in range(channels)]
    return Split(np.stack(layers, axis=-1), split.labels)


def of_kind(kind: str, images: np.ndarray, pair: Pair) -> np.ndarray:
    """Images uint8 `[B, H, W, C]` as a pair sees those of a kind of `KINDS`, in its dtype.

    Only ordinary images are normalised as in training.
    """
    values = images.astype(np.float64) / 255
    if kind == "images":
        values = (values - pair.objective.data.input_mean) / pair.objective.data.input_std
    elif kind == "constants":
        shares = np.arange(1, len(images) + 1) / len(images)
        values = np.ones_like(values) * shares[:, None, None, None]
    else:
        values *= 0 if kind == "zeros" else float(kind)
    return values.astype(pair.dtype)


def _nearest(size: int, wanted: int) -> np.ndarray:
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
