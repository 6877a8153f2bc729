"""How official files come to be here: somebody names their folder, or they are downloaded."""

import importlib.util
from pathlib import Path

from train.data.dataset import Dataset
from train.data.sources.official import Source, cache_folder, find
from train.system.errors import UserError


def load(
    source: Source, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> Dataset:
    """Loads a set from its official files.

    Args:
        source: the set.
        data_dir: a folder with the files, or with what was unpacked from them; without it they are
            downloaded, once.
        cache_dir: see `cache_folder`.

    Raises:
        UserError: if a file is missing, wrong or damaged, or there are no files and no network.
    """
    if data_dir is not None:
        return source.read(find(source.files, data_dir))
    if importlib.util.find_spec("tensorflow_datasets") is None:
        names = " and ".join(file.name for file in source.files)
        raise UserError(
            f"{source.name} is downloaded by tensorflow-datasets, which is not installed: install "
            f"the project's `train` extra, or name a folder with {names} with --data-dir."
        )

    from train.data.formats import tfds_downloads

    return source.read(tfds_downloads.download(source, cache_folder(cache_dir)))


def is_at_hand(source: Source, *, cache_dir: str | Path | None = None) -> bool:
    """Whether `load` needs neither files nor a network, since they were downloaded before."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        return False

    from train.data.formats import tfds_downloads

    return tfds_downloads.are_complete(source, cache_folder(cache_dir))
