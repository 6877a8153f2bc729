"""Which data sets there are, by name."""

import re
from collections.abc import Callable
from pathlib import Path

from train.data.dataset import Dataset
from train.data.made import affnist_generated, multi_mnist
from train.data.sources import (
    affnist,
    cifar,
    digits,
    expanded_mnist,
    fetch,
    mnist,
    mnist_corrupted,
    npz,
    smallnorb,
    svhn,
)
from train.data.sources.idx_source import IdxSource
from train.data.sources.official import Source
from train.system.errors import UserError

SOURCES: dict[str, Source] = {
    **cifar.SOURCES,
    svhn.SVHN.name: svhn.SVHN,
    **smallnorb.SOURCES,
    **mnist_corrupted.SOURCES,
}
"""The sets that are read from their official files as they are."""

MADE_OF_MNIST: dict[str, Callable[[Dataset], Dataset]] = {
    "multi_mnist": multi_mnist.make,
    expanded_mnist.NAME: expanded_mnist.make,
    affnist_generated.NAME: affnist_generated.make,
}
"""Sets that need no files but MNIST's."""

_OF_MNIST = (*MADE_OF_MNIST, affnist.NAME)

_CORRUPTED, _FOLDER, _NPZ = "mnist_corrupted/", "folder:", "npz:"
_FORMS = (f"{_CORRUPTED}CORRUPTION", f"{_FOLDER}PATH", f"{_NPZ}FILE")


def list_datasets() -> tuple[str, ...]:
    """Names that `load_dataset` knows, and the forms of those that are too many to list."""
    listed = (name for name in SOURCES if name not in mnist_corrupted.SOURCES)
    return ("digits", *mnist.SOURCES, *_OF_MNIST, *listed, *_FORMS)


def is_dataset(name: str) -> bool:
    """Whether a name is one of `list_datasets()` or has one of its forms."""
    has_form = name.startswith((_CORRUPTED, _FOLDER, _NPZ)) and name[-1] not in ":/"
    return has_form or name in SOURCES or name in ("digits", *mnist.SOURCES, *_OF_MNIST)


def find_source(name: str) -> IdxSource | Source | None:
    """The source of a set that is made from official files, which tells what is in them."""
    return mnist.SOURCES.get(name) or SOURCES.get(name)


def is_at_hand(name: str) -> bool:
    """Whether `load_dataset` takes no files and no network, as far as that can be seen."""
    if name in mnist.SOURCES or name in MADE_OF_MNIST:
        return mnist.is_prepared(mnist.SOURCES.get(name, mnist.MNIST))
    return name not in SOURCES or fetch.is_at_hand(SOURCES[name])


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
        name: one of `list_datasets()`, or of one of its forms: `mnist_corrupted/CORRUPTION`, and
            `folder:PATH` and `npz:FILE` (see the files of these names in `sources`) for data of
            one's own.
        data_dir: a folder with the set's official files; the embedded digits and data of one's own
            need none, sets made of MNIST need MNIST's.
        cache_dir: where prepared sets and downloads are kept; by default the environment variable
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        The data set.

    Raises:
        UserError: if there is no such data set, or it cannot be had.
    """
    if not is_dataset(name):
        raise UserError(
            f"there is no data set {name!r}: choose one of {', '.join(list_datasets())}."
        )
    if name == "digits":
        return digits.load()
    if name.startswith(_FOLDER):
        from train.data.sources import folder

        return folder.load(name.removeprefix(_FOLDER), name=name)
    if name.startswith(_NPZ):
        return npz.load(Path(name.removeprefix(_NPZ)), name=name)
    if name in mnist.SOURCES:
        return mnist.load(mnist.SOURCES[name], data_dir=data_dir, cache_dir=cache_dir)
    if name == affnist.NAME:
        # The folder may hold affNIST's files alone, where MNIST is in the cache.
        prepared = mnist.is_prepared(mnist.MNIST, cache_dir=cache_dir)
        files = None if prepared else data_dir
        source = mnist.load(mnist.MNIST, data_dir=files, cache_dir=cache_dir)
        return affnist.load(source, data_dir)
    if name in MADE_OF_MNIST:
        source = mnist.load(mnist.MNIST, data_dir=data_dir, cache_dir=cache_dir)
        return MADE_OF_MNIST[name](source)
    if name not in SOURCES:
        raise UserError(
            f"there is no data set {name!r}: choose {_CORRUPTED} and one of "
            f"{', '.join(mnist_corrupted.CORRUPTIONS)}."
        )
    return fetch.load(SOURCES[name], data_dir=data_dir, cache_dir=cache_dir)


def as_file_name(name: str) -> str:
    """A data set's name in a file's: `mnist_corrupted/fog` gives `mnist_corrupted-fog`."""
    return re.sub(r"[^\w.@-]", "-", name)
