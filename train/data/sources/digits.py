"""Handwritten digits that ship inside scikit-learn: 1,797 real 8x8 images."""

import importlib.util
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.system.errors import UserError

_LARGEST_VALUE = 16
_TEST_EVERY = 5


def load() -> Dataset:
    """Loads the digits, every fifth example of each class set aside as the test split.

    Images are uint8 [n, 8, 8, 1]: the values 0 to 16 of the original become 0 to 255, rounded. The
    split is a rule, not a draw: it is stratified, mixes the writers, and is the same for every seed
    and every version of NumPy and scikit-learn.

    Raises:
        UserError: if scikit-learn is not installed.

    Reference:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998, doi:10.24432/C50P49 (scikit-learn ships its test part).
    """
    original, labels = _original()
    images = np.rint(original * (255 / _LARGEST_VALUE)).astype(np.uint8)[..., np.newaxis]
    in_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):  # the third, the eighth, the thirteenth, ...
        in_test[np.flatnonzero(labels == label)[_TEST_EVERY // 2 :: _TEST_EVERY]] = True
    return Dataset(
        "digits",
        Split(images[~in_test], labels[~in_test]),
        Split(images[in_test], labels[in_test]),
        tuple(map(str, range(10))),
    )


def _original() -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, 8, 8]` with values from 0 to 16, and labels.

    What `sklearn.datasets.load_digits` returns, of its file: the import of scikit-learn takes as
    long as JAX's.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the digits are part of scikit-learn, which is not installed: "
            "install the project's `train` dependencies."
        )
    (folder,) = found.submodule_search_locations
    table = np.loadtxt(Path(folder) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)
