"""tensorflow-datasets' cache, filled and read without TensorFlow.

Official files are downloaded into it once, verified, and kept in `downloads/NAME`, which is as good
for `--data-dir` as any folder. Sets in MNIST's format are prepared instead, so that stock
tensorflow-datasets finds and reads them. Its own builders of these sets need TensorFlow for two
things, unpacking `.gz` and encoding PNG; the builder here inherits everything else from them.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import DownloadError
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from train.data.dataset import Dataset, Split, stored
from train.data.official import OfficialFile, Source
from train.system.errors import UserError, first_line
from train.system.files import reading, staged

PROBE_SECONDS = 5.0
CLEANING_SECONDS = 3.0


def cache_folder() -> Path:
    """The folder in which tensorflow-datasets keeps what it has prepared and downloaded.

    The environment variable `TFDS_DATA_DIR` names it, else it is `~/tensorflow_datasets`.
    """
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def has(source: Source) -> bool:
    """Whether the cache holds a set, so that nothing has to be downloaded."""
    return not _missing(source, cache_folder())


def load(source: Source, data_dir: str | Path | None = None) -> Dataset:
    """Loads a set from the cache, after it was downloaded or prepared there the first time.

    That is done in a hidden folder of the cache, from which whole files and sets are moved to their
    place: an attempt that fails, or a second one at the same time, leaves no half of a set behind.
    A set that is prepared is made of the official files in `data_dir`, or else they are downloaded.

    Raises:
        UserError: if the files are wrong or out of reach, the cache cannot be written, or what it
            holds is damaged or in a format that only TensorFlow reads.
    """
    cache = cache_folder()
    folder = _folder(source, cache)
    if missing := _missing(source, cache):
        if data_dir is None:
            _require_publisher(source, missing, cache)
        with _staging_folder(source, cache) as staging:
            if source.is_prepared:
                print(f"Preparing {source.name} in {cache}, once.", file=sys.stderr)
                _prepare(source, cache, staging, data_dir)
            else:
                print(f"Downloading {_listed(missing)} to {folder}, once.", file=sys.stderr)
                folder.mkdir(parents=True, exist_ok=True)
                infos = _url_infos(missing)
                manager = tfds.download.DownloadManager(download_dir=staging, url_infos=infos)
                paths = manager.download({file.name: file.url for file in missing})
                # Which tensorflow-datasets has done of those whose SHA-256 is known.
                files = [file.verify(Path(paths[file.name])) for file in missing]
                for path, file in zip(files, missing, strict=True):
                    path.replace(folder / file.name)
    if source.is_prepared:
        return _read_prepared(source, cache)
    return source.load(source.find(folder))


def _official_positions(split: str, size: int) -> np.ndarray:
    """The numbers in the official file of the stored examples of a split, one after the other."""
    # They are stored in the order of the MD5 of the split's name and the example's key, here its
    # number. A change of that rule would be a new major version of the data set.

    def digest(key: int) -> bytes:
        return hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).digest()

    return np.array(sorted(range(size), key=digest), dtype=np.int64)


def _missing(source: Source, cache: Path) -> list[OfficialFile]:
    """Official files of a set without which the cache does not hold it."""
    folder = _folder(source, cache)
    if source.is_prepared:
        return [] if (folder / "dataset_info.json").is_file() else list(source.files)
    return [file for file in source.files if not (folder / file.name).is_file()]


def _folder(source: Source, cache: Path) -> Path:
    """The folder of a set in the cache."""
    if source.is_prepared:
        return cache / source.tfds_name / str(tfds.builder_cls(source.tfds_name).VERSION)
    return cache / "downloads" / source.tfds_name


def _listed(files: Sequence[OfficialFile]) -> str:
    return " and ".join(file.name for file in files)


def _require_publisher(source: Source, files: Sequence[OfficialFile], cache: Path) -> None:
    """Asks for a file and fails within seconds, where tensorflow-datasets would try for minutes."""
    # Through requests, as tensorflow-datasets does, so that proxies and certificates count alike;
    # and on a thread, because looking up a name may take longer than any timeout given.
    url = files[0].url
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
                outcome.append(None if response.ok else f"it answers {response.status_code}")
        except requests.RequestException as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    failure = outcome[0] if outcome else f"no answer in {PROBE_SECONDS:g} seconds"
    if failure is not None:
        raise UserError(
            f"{source.name} is not in {cache} and {urlsplit(url).netloc} cannot be reached "
            f"({failure}): connect to the internet, or name a folder with {_listed(files)} with "
            "--data-dir."
        )


@contextlib.contextmanager
def _staging_folder(source: Source, cache: Path) -> Iterator[Path]:
    """A hidden folder in the cache for work of tensorflow-datasets, which prints nothing here."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{source.tfds_name}-", dir=cache))
        tfds.disable_progress_bar()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield folder
        finally:
            tfds.enable_progress_bar()
            # Threads of a download that failed may go on writing for a while.
            deadline = time.monotonic() + CLEANING_SECONDS
            while folder.exists() and time.monotonic() < deadline:
                shutil.rmtree(folder, ignore_errors=True)
                time.sleep(0.05)
    except (requests.RequestException, DownloadError, NonMatchingChecksumError) as error:
        raise UserError(
            f"{source.name} could not be downloaded from {source.files[0].url} "
            f"({first_line(error)}): try again, or get the files yourself and name their folder "
            "with --data-dir."
        ) from error
    # ArrayRecord's writer reports a full disk as a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{source.name} cannot be written to {cache} ({first_line(error)}): make room or give "
            "permission there, or name another folder with TFDS_DATA_DIR."
        ) from error


def _url_infos(files: Sequence[OfficialFile]) -> dict[str, UrlInfo]:
    """What tensorflow-datasets is to verify: it knows SHA-256 alone."""
    return {
        file.url: UrlInfo(file.size, file.checksum, file.name)
        for file in files
        if file.size is not None
    }


def _prepare(source: Source, cache: Path, staging: Path, data_dir: str | Path | None) -> None:
    builder = _builder(source, staging)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=data_dir, try_download_gcs=False),
        file_format="array_record",
    )
    folder = _folder(source, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        Path(builder.data_path).rename(folder)
    except OSError:
        # Another process may have been faster; its version is as good.
        if _missing(source, cache):
            raise


def _builder(source: Source, folder: Path) -> Any:
    stock = tfds.builder_cls(source.tfds_name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg, misc, valid-type]
        """The stock builder, its two steps that need TensorFlow replaced."""

        # Taken down in the metadata, where stock tensorflow-datasets writes its own.
        __module__ = stock.__module__
        name = source.tfds_name
        url_infos = _url_infos(source.files)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
            dataset = source.load(dl_manager.download([file.url for file in source.files]))
            return {
                "train": self._generate_examples(stored(dataset.train)),
                "test": self._generate_examples(stored(dataset.test)),
            }

        def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
            for key, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray(image[..., 0]).save(png, format="png")
                yield key, {"image": png.getvalue(), "label": int(label)}

    return Builder(data_dir=folder)


def _read_prepared(source: Source, cache: Path) -> Dataset:
    """Reads a set that this module or tensorflow-datasets itself has prepared.

    Its images are PNG files, which take seconds: once they are arrays, these are kept beside it.
    """
    folder = _folder(source, cache)
    arrays, written = folder.with_name(f".{folder.name}-arrays.npz"), _written(folder)
    unreadable = contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile)
    with unreadable, arrays.open("rb") as file, np.load(file) as kept:
        if kept["written"].item() == written:
            train = Split(kept["train_images"], kept["train_labels"])
            test = Split(kept["test_images"], kept["test_labels"])
            return Dataset(source.name, train, test, source.class_names)
    with reading(folder, source.name, "delete that folder, and it will be prepared again"):
        builder = _builder(source, cache)
        try:
            train, test = _read_split(builder, "train"), _read_split(builder, "test")
        except NotImplementedError as error:
            raise UserError(
                f"{folder} holds {source.name} as {builder.info.file_format.value}, which needs "
                "TensorFlow to read: name another cache folder with TFDS_DATA_DIR."
            ) from error
    # The cache may be one that can only be read.
    with contextlib.suppress(OSError), staged(arrays) as new:
        np.savez(
            new,
            written=np.array(written),
            train_images=train.images,
            train_labels=train.labels,
            test_images=test.images,
            test_labels=test.labels,
        )
    return Dataset(source.name, train, test, source.class_names)


def _written(folder: Path) -> str:
    """What files a folder has, and when each was written."""
    files = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return " ".join(f"{name}:{about.st_size}:{about.st_mtime_ns}" for name, about in files)


def _read_split(builder: Any, name: str) -> Split:
    # Decoding the images here, rather than one by one in tensorflow-datasets, is four times faster.
    stored = builder.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()})
    examples: Sequence[Any] = stored.__getitems__(range(len(stored)))
    images = np.empty((len(examples), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for position, example in zip(_official_positions(name, len(examples)), examples, strict=True):
        with Image.open(io.BytesIO(example["image"])) as image:
            images[position] = np.asarray(image).reshape(images.shape[1:])
        labels[position] = example["label"]
    return Split(images, labels)
