"""Which data sets there are, by name."""

from pathlib import Path

from train.data import digits, mnist
from train.data.dataset import Dataset
from train.errors import UserError


def list_datasets() -> tuple[str, ...]:
    """Names that `load_dataset` knows."""
    return ("digits", *mnist.SOURCES)


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: one of `list_datasets()`.
        data_dir: a folder with the set's official files; the embedded digits need none.
        cache_dir: where prepared sets are kept; by default the environment variable
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        The data set: images uint8 [n, height, width, channels], labels int32 [n].

    Raises:
        UserError: if there is no such data set, or it cannot be had.
    """
    if name == "digits":
        return digits.load()
    if name in mnist.SOURCES:
        return mnist.load(mnist.SOURCES[name], data_dir=data_dir, cache_dir=cache_dir)
    raise UserError(f"there is no data set {name!r}: choose one of {', '.join(list_datasets())}.")
