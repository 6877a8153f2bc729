"""Which data sets there are, by name."""

from collections.abc import Callable
from pathlib import Path

from train.data import affnist, affnist_generated, digits, expanded_mnist, mnist, multi_mnist
from train.data.dataset import Dataset
from train.errors import UserError

MADE_OF_MNIST: dict[str, Callable[[Dataset], Dataset]] = {
    "multi_mnist": multi_mnist.make,
    expanded_mnist.NAME: expanded_mnist.make,
    affnist_generated.NAME: affnist_generated.make,
}
"""Sets that need no files but MNIST's."""


def list_datasets() -> tuple[str, ...]:
    """Names that `load_dataset` knows."""
    return ("digits", *mnist.SOURCES, *MADE_OF_MNIST, affnist.NAME)


def labels_per_image(name: str) -> int:
    """Classes that an image of a data set shows."""
    return 2 if name == "multi_mnist" else 1


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: one of `list_datasets()`.
        data_dir: a folder with the set's official files; the embedded digits need none, sets made
            of MNIST need MNIST's.
        cache_dir: where prepared sets are kept; by default the environment variable
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        The data set.

    Raises:
        UserError: if there is no such data set, or it cannot be had.
    """
    if name == "digits":
        return digits.load()
    if name in mnist.SOURCES:
        return mnist.load(mnist.SOURCES[name], data_dir=data_dir, cache_dir=cache_dir)
    if name in MADE_OF_MNIST or name == affnist.NAME:
        source = mnist.load(mnist.MNIST, data_dir=data_dir, cache_dir=cache_dir)
        if name == affnist.NAME:
            return affnist.load(source, data_dir)
        return MADE_OF_MNIST[name](source)
    raise UserError(f"there is no data set {name!r}: choose one of {', '.join(list_datasets())}.")
