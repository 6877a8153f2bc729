"""tensorflow-datasets without TensorFlow: preparing an IDX source in its cache and reading it back.

tensorflow-datasets' own builders of these sets need TensorFlow for two things, unpacking `.gz` and
encoding PNG. The builder here inherits everything else from them (name, version, features,
layout), so what it writes is what stock tensorflow-datasets finds and reads.
"""

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import DownloadError
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from train.data.dataset import Dataset, Split, stored
from train.data.formats.internet import require_network
from train.data.formats.staging import quiet, staging_folder
from train.data.sources.idx_source import FILE_NAMES, IdxSource
from train.system.errors import UserError, first_line


def is_prepared(source: IdxSource, cache: Path) -> bool:
    """Says whether the cache holds the source, complete."""
    return (_version_folder(source, cache) / "dataset_info.json").is_file()


def prepare(source: IdxSource, cache: Path, *, data_dir: str | Path | None) -> None:
    """Writes the source into the cache, where stock tensorflow-datasets finds it.

    The work is done in a hidden folder beside the result, which a single rename puts in place: a
    preparation that fails, or a second one at the same time, leaves no half of a version behind.

    Args:
        source: the data set.
        cache: tensorflow-datasets' folder of prepared data; made where it does not exist.
        data_dir: the folder with the four official files, or None to download them.

    Raises:
        UserError: if the files are missing, wrong or out of reach, or the cache cannot be written.
    """
    if data_dir is None:
        files = f"the four official IDX files ({', '.join(FILE_NAMES)})"
        require_network(source.name, source.url + FILE_NAMES[0], cache, files)
    else:
        source.find(data_dir)
    print(f"Preparing {source.name} in {cache}, once.", file=sys.stderr)
    try:
        with staging_folder(source.name, cache) as staging:
            builder = _builder_class(source)(data_dir=staging)
            with quiet():
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(
                        manual_dir=data_dir, try_download_gcs=False
                    ),
                    file_format="array_record",
                )
            _publish(Path(builder.data_path), _version_folder(source, cache))
    except (requests.RequestException, DownloadError, NonMatchingChecksumError) as error:
        raise UserError(
            f"{source.name} could not be downloaded from {source.url} "
            f"({first_line(error)}): try again, or get the four files yourself and name their "
            "folder with --data-dir."
        ) from error
    # ArrayRecord's writer tells a full disk as a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{source.name} cannot be prepared in {cache} ({first_line(error)}): make room or "
            "give permission there, or name another folder with TFDS_DATA_DIR."
        ) from error


def read(source: IdxSource, cache: Path) -> Dataset:
    """Reads a prepared source, back in the order of the official files.

    Args:
        source: the data set.
        cache: the folder that it was prepared in, by this module or by tensorflow-datasets itself.

    Returns:
        The data set, images uint8 [n, height, width, channels].

    Raises:
        UserError: if the prepared data are damaged, or in a format that only TensorFlow can read.
    """
    folder = _version_folder(source, cache)
    try:
        builder = _builder_class(source)(data_dir=cache)
        train, test = _read_split(builder, "train"), _read_split(builder, "test")
    except NotImplementedError as error:
        raise UserError(
            f"{folder} holds {source.name} as {builder.info.file_format.value}, which needs "
            "TensorFlow to read: name another cache folder with TFDS_DATA_DIR."
        ) from error
    # Whatever tensorflow-datasets, ArrayRecord and Pillow raise for a damaged file, in any version.
    except Exception as error:
        raise UserError(
            f"{folder} is damaged ({first_line(error)}): delete that folder, and it "
            "will be prepared again."
        ) from error
    return Dataset(source.name, train, test, source.class_names)


def official_positions(split: str, size: int) -> np.ndarray:
    """Where the examples of a prepared split stand in the official files.

    tensorflow-datasets stores examples in the order of the MD5 of the split's name and the
    example's key, which for these sets is its number in the file. A change of that rule would
    be a new major version of the data set.

    Args:
        split: "train" or "test".
        size: number of examples.

    Returns:
        int64 [size]: stored example `i` is number `official_positions[i]` of the official file.
    """

    def digest(key: int) -> bytes:
        return hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).digest()

    return np.array(sorted(range(size), key=digest), dtype=np.int64)


def _builder_class(source: IdxSource) -> type[Any]:
    stock = tfds.builder_cls(source.name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg, misc, valid-type]
        """The stock builder, its two steps that need TensorFlow replaced."""

        # Taken down in the metadata, where stock tensorflow-datasets writes its own.
        __module__ = stock.__module__
        name = source.name
        url_infos = {  # noqa: RUF012  (tensorflow-datasets reads it as a class property)
            source.url + name: UrlInfo(fingerprint.size, fingerprint.sha256, name)
            for name, fingerprint in source.fingerprints.items()
        }

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
            paths = dl_manager.download({name: source.url + name for name in FILE_NAMES})
            dataset = source.read(paths)
            return {
                "train": self._generate_examples(stored(dataset.train)),
                "test": self._generate_examples(stored(dataset.test)),
            }

        def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
            for key, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                yield key, {"image": _encode_png(image), "label": int(label)}

    return Builder


def _version_folder(source: IdxSource, cache: Path) -> Path:
    return cache / source.name / str(tfds.builder_cls(source.name).VERSION)


def _publish(staged: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(final)
    except OSError:
        # Another process may have been faster; its version is as good.
        if not (final / "dataset_info.json").is_file():
            raise


def _read_split(builder: Any, name: str) -> Split:
    # Decoding the images here, rather than one by one in tensorflow-datasets, is four times faster.
    stored = builder.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()})
    examples: Sequence[Any] = stored.__getitems__(range(len(stored)))
    images = np.empty((len(examples), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for position, example in zip(official_positions(name, len(examples)), examples, strict=True):
        images[position] = _decode_png(example["image"]).reshape(images.shape[1:])
        labels[position] = example["label"]
    return Split(images, labels)


def _encode_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, format="png")
    return file.getvalue()


def _decode_png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)
