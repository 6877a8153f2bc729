"""affNIST's official test files: MNIST's test digits, transformed."""

from pathlib import Path
from typing import Any

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.sources import expanded_mnist
from train.system.errors import UserError

NAME = "affnist"
URL = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/"
SIDE = 40
BATCHES = 32
_WHOLE = "test.mat"
_PART = "test_batches"


def load(digits: Dataset, data_dir: str | Path | None) -> Dataset:
    """MNIST on a larger background to learn from, affNIST's test images to be measured on.

    T. Tieleman, "The affNIST dataset for machine learning", 2013: 32 transformed versions of each
    of MNIST's test digits, 40x40.

    Args:
        digits: MNIST.
        data_dir: the folder with what the official archives hold: `test.mat`, or `test_batches`
            with `1.mat` to `32.mat`.

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
    """The file with all test images, or those with a part each, in their order."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    parts = [folder / _PART / f"{number}.mat" for number in range(1, BATCHES + 1)]
    missing = [path for path in parts if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} does not exist: {folder} must hold {_WHOLE}, or {_PART} with 1.mat to "
            f"{BATCHES}.mat, as published in {URL}{_PART}.zip."
        )
    return parts


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 40, 40, 1] and labels int32 [n] of a file."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            "affNIST's files are read with SciPy, which is not installed: install the project's "
            "`train` extra."
        ) from error
    try:
        struct: Any = loadmat(path, variable_names=["affNISTdata"])["affNISTdata"][0, 0]
        images, labels = np.asarray(struct["image"]), np.asarray(struct["label_int"]).ravel()
    # SciPy tells a damaged file in exceptions of any kind.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as a file of affNIST ({reason}): get it again from {URL}."
        ) from error
    right = images.shape == (SIDE * SIDE, len(labels)) and images.dtype == np.uint8
    if not right or labels.dtype.kind not in "iuf" or (labels != np.rint(labels)).any():
        raise UserError(
            f"{path} holds images {images.dtype} {list(images.shape)} and labels {labels.dtype} "
            f"{list(labels.shape)}, expected uint8 [{SIDE * SIDE}, n] and whole numbers [n]: get "
            f"it again from {URL}."
        )
    return images.T.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)
