"""All data sets, by name."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.data.dataset import Dataset
from train.data.made import affnist_generated, multi_mnist
from train.data.official import OtherFileError, Source
from train.data.sources import (
    affnist,
    cifar,
    digits,
    emnist,
    expanded_mnist,
    mnist,
    mnist_corrupted,
    npz,
    qmnist,
    smallnorb,
    svhn,
)
from train.system.errors import UserError, did_you_mean

SOURCES: dict[str, Source] = {
    source.name: source
    for family in (mnist, qmnist, emnist, cifar, svhn, smallnorb, mnist_corrupted)
    for source in family.SOURCES
}
"""The sets that are read from official files."""

MADE_OF_MNIST: dict[str, Callable[[Dataset], Dataset]] = {
    "multi_mnist": multi_mnist.make,
    expanded_mnist.NAME: expanded_mnist.make,
    affnist_generated.NAME: affnist_generated.make,
}
"""The sets that need no files but MNIST's."""

_CORRUPTED, _EMNIST = "mnist_corrupted/", "emnist/"
_FOLDER, _NPZ, _TFDS = "folder:", "npz:", "tfds:"
_FAMILIES = (_CORRUPTED, _EMNIST, _FOLDER, _NPZ, _TFDS)
_FORMS = tuple(
    map("".join, zip(_FAMILIES, ("CORRUPTION", "PART", "PATH", "FILE", "NAME"), strict=True))
)


def list_datasets() -> tuple[str, ...]:
    """Names that `load_dataset` knows, and the forms of those that are too many to list."""
    listed = (name for name in SOURCES if "/" not in name)
    return ("digits", *listed, *MADE_OF_MNIST, affnist.NAME, *_FORMS)


def is_dataset(name: str) -> bool:
    """Whether a name is one of `list_datasets()` or has one of its forms."""
    if name.startswith(_FAMILIES):
        return name not in _FAMILIES
    return name in list_datasets()


def is_at_hand(name: str) -> bool:
    """Whether `load_dataset` needs no files and downloads none, as far as that can be seen."""
    source = SOURCES.get("mnist" if name in MADE_OF_MNIST else name)
    return source is None or _is_in_cache(source)


def labels_per_image(name: str) -> int:
    """Classes that an image of a data set shows, as far as its name tells."""
    return 2 if name == "multi_mnist" else 1


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    layout: npz.Layout = npz.AS_WRITTEN,
) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: one of `list_datasets()`, or of one of its forms: `mnist_corrupted/CORRUPTION`, and
            `folder:PATH` and `npz:FILE` (see the files of these names in `sources`) for data of
            one's own, `tfds:NAME` (`sources/prepared.py`) for what tensorflow-datasets has made.
        data_dir: a folder with the set's official files, whose order the data set keeps; without it
            they are downloaded, once. The embedded digits and data of one's own need none, sets
            made of MNIST need MNIST's; of `tfds:NAME` it is the folder that was prepared. Official
            files are verified also where the cache (see `tfds_cache.cache_folder`) has the same
            images already.
        layout: how an `npz:` file is to be understood, where that has to be said.

    Raises:
        UserError: if there is no such data set, a file is missing, wrong or damaged, there are no
            files and no internet, or the cache cannot be written or read.
    """
    if not is_dataset(name):
        known = list_datasets()
        raise UserError(
            f"there is no data set {name!r}{did_you_mean(name, known)}: choose one of "
            f"{', '.join(known)}."
        )
    if layout != npz.AS_WRITTEN and not name.startswith(_NPZ):
        raise UserError(
            f"--image-axes and --labels-from say how an npz: file is written, but {name} is none: "
            "leave them out."
        )
    if data_dir is not None:
        data_dir = Path(data_dir).expanduser()
        if not data_dir.is_dir():
            raise UserError(
                f"there is no folder {data_dir}: name one that there is with --data-dir."
            )
    if name == "digits":
        return digits.load()
    if name.startswith(_FOLDER):
        from train.data.sources import folder

        return folder.load(name.removeprefix(_FOLDER), name=name)
    if name.startswith(_NPZ):
        return npz.load(Path(name.removeprefix(_NPZ)).expanduser(), name=name, layout=layout)
    if name.startswith(_TFDS):
        if _cache() is None:
            raise UserError(
                f"{name} comes through tensorflow-datasets, which is not installed: install the "
                "project's `train` dependencies."
            )
        from train.data.sources import prepared

        return prepared.load(name.removeprefix(_TFDS), name=name, cache=data_dir)
    if name in MADE_OF_MNIST:
        return MADE_OF_MNIST[name](_load_source(SOURCES["mnist"], data_dir))
    if name == affnist.NAME:
        # The folder may hold affNIST's files alone, where MNIST is in the cache.
        files = None if _is_in_cache(SOURCES["mnist"]) else data_dir
        return affnist.load(_load_source(SOURCES["mnist"], files), data_dir)
    if name not in SOURCES:
        family = f"{name.partition('/')[0]}/"
        members = [known.removeprefix(family) for known in SOURCES if known.startswith(family)]
        raise UserError(
            f"there is no data set {name!r}: choose {family} and one of {', '.join(members)}."
        )
    return _load_source(SOURCES[name], data_dir)


def as_file_name(name: str) -> str:
    """Name of a set for a file: `mnist_corrupted/fog` gives `mnist_corrupted-fog`."""
    return re.sub(r"[^\w.@-]", "-", name)


def _cache() -> Any:
    """The module of tensorflow-datasets' cache, or None where that is not installed."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        return None
    from train.data import tfds_cache  # which takes a second to import

    return tfds_cache


def _is_in_cache(source: Source) -> bool:
    cache = _cache()
    return cache is not None and cache.has(source)


def _load_source(source: Source, data_dir: str | Path | None) -> Dataset:
    try:
        paths = None if data_dir is None else source.find(data_dir)
    except OtherFileError as error:
        for other in SOURCES.values():
            for file in other.files:
                if file.checksum == error.checksum:
                    raise UserError(
                        f"{error.path} is not of {source.name}, but {file.content}: choose "
                        f"--dataset {other.name}, or name another folder with --data-dir."
                    ) from error
        raise
    packed = paths is None or [path.name for path in paths] == [file.name for file in source.files]
    cache = _cache() if paths is None or (source.is_prepared and packed) else None
    if cache is not None:
        return cache.load(source, data_dir)
    if paths is not None:
        return source.load(paths)
    names = " and ".join(file.name for file in source.files)
    raise UserError(
        f"{source.name} comes through tensorflow-datasets, which is not installed: install the "
        f"project's `train` dependencies, or name a folder with {names} with --data-dir."
    )
