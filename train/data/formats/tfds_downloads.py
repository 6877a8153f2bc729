"""Official files that tensorflow-datasets downloads, kept in its cache under their own names.

For the sets that are read from their official files as they are (`sources.fetch`). The folder
that they are kept in, `downloads/NAME` in the cache, is as good for `--data-dir` as any.
"""

import sys
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import DownloadError
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from train.data.formats.internet import require_network
from train.data.formats.staging import quiet, staging_folder
from train.data.sources.official import OfficialFile, Source, find
from train.system.errors import UserError, first_line


def are_complete(source: Source, cache: Path) -> bool:
    """Whether all files of a source have been downloaded."""
    return not _missing(source, cache)


def download(source: Source, cache: Path) -> dict[str, Path]:
    """Downloads the files of a source that the cache does not hold.

    The work is done in a hidden folder of the cache: a file is in its place whole and verified, or
    not at all.

    Returns:
        The path of each file by its name.

    Raises:
        UserError: if a file is out of reach or not the official one, or the cache cannot be
            written.
    """
    missing = _missing(source, cache)
    if missing:
        names = " and ".join(file.name for file in missing)
        require_network(source.name, missing[0].url, cache, names)
        print(f"Downloading {names} to {_folder(source, cache)}, once.", file=sys.stderr)
        _fetch(source, missing, cache)
    return find(source.files, _folder(source, cache))


def _fetch(source: Source, files: list[OfficialFile], cache: Path) -> None:
    urls = {file.name: file.url for file in files}
    infos = {
        file.url: UrlInfo(file.fingerprint.size, file.fingerprint.sha256, file.name)
        for file in files
    }
    folder = _folder(source, cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging_folder(source.tfds_name, cache) as staging, quiet():
            manager = tfds.download.DownloadManager(download_dir=staging, url_infos=infos)
            for name, path in manager.download(urls).items():
                Path(path).replace(folder / name)
    except (requests.RequestException, DownloadError, NonMatchingChecksumError) as error:
        raise UserError(
            f"{source.name} could not be downloaded from {files[0].url} ({first_line(error)}): try "
            "again, or get the files yourself and name their folder with --data-dir."
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({first_line(error)}): make room or give permission "
            "there, or name another folder with TFDS_DATA_DIR."
        ) from error


def _missing(source: Source, cache: Path) -> list[OfficialFile]:
    folder = _folder(source, cache)
    return [file for file in source.files if not (folder / file.name).is_file()]


def _folder(source: Source, cache: Path) -> Path:
    return cache / "downloads" / source.tfds_name
