"""affNIST's official test files: MNIST's test digits, transformed."""

from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats import mat
from train.data.sources import expanded_mnist
from train.system.errors import UserError

NAME = "affnist"
URL = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/"
SIDE = 40
BATCHES = 32
_WHOLE = "test.mat"
_PART = "test_batches"


def load(digits: Dataset, data_dir: str | Path | None) -> Dataset:
    """Loads MNIST on a larger background to learn from, affNIST's test images to be measured on.

    T. Tieleman, "The affNIST dataset for machine learning", 2013: 32 transformed versions of each
    of MNIST's test digits, 40x40. The folder has what the official archives hold: `test.mat`, or
    `test_batches` with `1.mat` to `32.mat`.

    Raises:
        UserError: if there is no such file, or one cannot be read.
    """
    if data_dir is None:
        raise UserError(
            f"affnist is read from its official files: get {URL}{_PART}.zip (or {_WHOLE}.zip), "
            f"unpack it, and name the folder that holds {_PART} (or {_WHOLE}) with --data-dir; "
            "affnist-generated is made from MNIST instead."
        )
    parts = [_read(path) for path in _find(Path(data_dir))]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return expanded_mnist.with_test(digits, NAME, Split(images, labels))


def _find(folder: Path) -> list[Path]:
    """Finds the file with all test images, or those with a part each, in their order."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    parts = [folder / _PART / f"{number}.mat" for number in range(1, BATCHES + 1)]
    if missing := [path for path in parts if not path.is_file()]:
        raise UserError(
            f"{missing[0]} does not exist: {folder} must hold {_WHOLE}, or {_PART} with 1.mat to "
            f"{BATCHES}.mat, as published in {URL}{_PART}.zip."
        )
    return parts


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads images uint8 [n, 40, 40, 1] and labels int32 [n]."""
    (struct,) = mat.read(path, ("affNISTdata",))
    try:
        images, labels = (np.asarray(struct[name][0, 0]) for name in ("image", "label_int"))
    except (IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not a file of affNIST, its affNISTdata has no image and label_int: get it "
            f"again from {URL}."
        ) from error
    labels = labels.ravel()
    right = images.shape == (SIDE * SIDE, len(labels)) and images.dtype == np.uint8
    if not right or labels.dtype.kind not in "iuf" or (labels != np.rint(labels)).any():
        raise UserError(
            f"{path} holds images {images.dtype} {list(images.shape)} and labels {labels.dtype} "
            f"{list(labels.shape)}, expected uint8 [{SIDE * SIDE}, n] and whole numbers [n]: get "
            f"it again from {URL}."
        )
    return images.T.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)
