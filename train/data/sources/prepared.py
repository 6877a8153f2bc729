"""Any data set that tensorflow-datasets has prepared, read where it is, without TensorFlow."""

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.features import ClassLabel, Image

from train.data.dataset import Dataset
from train.data.formats.images import as_text, read_image
from train.data.on_disk import OnDisk, in_threads
from train.data.tfds_cache import cache_folder
from train.system.errors import UserError
from train.system.files import reading
from train.system.progress import Progress

_FORM = re.compile(
    r"(?P<name>\w+)(?:/(?P<config>[\w.-]+))?"
    r"(?:@(?P<height>\d{1,5})x(?P<width>\d{1,5})(?:x(?P<channels>[13]))?)?"
)
_TEST_EVERY = 5
_UNKNOWN = -1  # the label of test images that a set keeps to itself
_AT_ONCE = 4_096


def load(where: str, *, name: str, cache: Path | None = None) -> Dataset:
    """Opens a data set that tensorflow-datasets has prepared in a folder.

    By default that is its cache, see `tfds_cache.cache_folder`.

    Its images stay in their files. They are those of its feature of images and of its feature of
    classes, of which it has one each. Its split `validation`, if there is one, is to choose by;
    without a split `test`, every fifth training image is a test image.

    `where` is `NAME` or `NAME/CONFIG`, for images that are all of one size, with `@HEIGHTxWIDTH` or
    `@HEIGHTxWIDTHxCHANNELS` after it to have them made alike as by `read_image`.

    Raises:
        UserError: if the set is not prepared, or not so that its examples are read one by one
            without TensorFlow, or it has no images of one class each.
    """
    found = _FORM.fullmatch(where)
    if found is None:
        raise UserError(
            f"{name} names no set: write tfds:NAME, tfds:NAME/CONFIG or, to have images "
            "made alike, tfds:NAME@HEIGHTxWIDTH."
        )
    folder = _newest(found["name"], found["config"], name, cache or cache_folder())
    with reading(folder, name, "prepare it again"):
        builder = tfds.builder_from_directory(folder)
        features = builder.info.features
        image, label = (_only(features, kind, name) for kind in (Image, ClassLabel))
        if features[image].np_dtype != np.uint8:
            raise UserError(
                f"the images of {name} are {np.dtype(features[image].np_dtype)}, where a network "
                "takes uint8: choose another set."
            )
        shape = _shape(found, features[image].shape, name)
        decoders = {image: tfds.decode.SkipDecoding()}
        splits: dict[str, OnDisk] = {}
        for split in ("train", "validation", "test"):
            if split in builder.info.splits:
                try:
                    stored = builder.as_data_source(split, decoders=decoders)
                except NotImplementedError as error:
                    raise UserError(
                        f"{folder} holds {name} as {builder.info.file_format.value}, which needs "
                        "TensorFlow to read: prepare it with file_format='array_record'."
                    ) from error
                about = f"{builder.info.full_name}, {split}"
                reader = _Stored(stored, image, about, shape, made_alike=bool(found["height"]))
                labels = _labels(stored, label, about)
                if len(labels) and (labels == _UNKNOWN).all():
                    print(f"note: {about} has no labels, and is left out", file=sys.stderr)
                    continue
                splits[split] = OnDisk(reader, np.arange(len(labels)), labels)
    if "train" not in splits:
        raise UserError(
            f"{name} has the splits {', '.join(builder.info.splits)}: none is called train."
        )
    if "test" not in splits:
        whole = np.arange(len(splits["train"]))
        is_test = whole % _TEST_EVERY == _TEST_EVERY // 2
        splits["test"] = splits["train"].take(whole[is_test])
        splits["train"] = splits["train"].take(whole[~is_test])
        print(
            f"note: {name} has no split test: a fifth of its training images are", file=sys.stderr
        )
    return Dataset(name, class_names=tuple(features[label].names), **splits)


@dataclass(frozen=True)
class _Stored:
    """Reads the images of a split, see `Reader`."""

    source: Any  # of encoded images, by their number
    feature: str
    about: str
    image_shape: tuple[int, int, int]
    made_alike: bool

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        examples = self.source.__getitems__([int(number) for number in numbers])
        return in_threads(self._decoded, zip(numbers, examples, strict=True))

    def _decoded(self, numbered: tuple[int, Any]) -> np.ndarray:
        number, example = numbered
        content = io.BytesIO(example[self.feature])
        shape = self.image_shape if self.made_alike else None
        image = read_image(Path(self.name(number)), shape, content=content)
        if image.shape != self.image_shape:
            raise UserError(
                f"{self.name(number)} is {as_text(image.shape)}, but should be "
                f"{as_text(self.image_shape)}: have images made alike, by ending the name in "
                "@HEIGHTxWIDTH."
            )
        return image

    def name(self, number: int) -> str:
        return f"{self.about} {number}"

    identity = name

    def content(self, number: int) -> bytes:
        (example,) = self.source.__getitems__([number])
        return example[self.feature]


def _newest(name: str, config: str | None, asked: str, cache: Path) -> Path:
    """The folder of the newest version of a set in the cache."""
    folder = cache / name / (config or "")
    versions = {
        tuple(map(int, info.parent.name.split("."))): info.parent
        for info in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    }
    if not versions:
        configs = sorted(
            {info.parents[1].name for info in (cache / name).glob("*/*/dataset_info.json")}
        )
        advice = (
            f"choose one of its configurations, {', '.join(configs)}"
            if configs
            else "prepare it there with tensorflow-datasets, with file_format='array_record', or "
            "name another folder with --data-dir or TFDS_DATA_DIR"
        )
        raise UserError(f"{asked} is not prepared in {cache}: {advice}.")
    return versions[max(versions)]


def _only(features: Any, kind: type, name: str) -> str:
    """The feature of a kind, of which there is one."""
    found = [key for key, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        what = "images" if kind is Image else "classes"
        raise UserError(
            f"{name} has {len(found)} features of {what}, where a network learns one: choose "
            "another set."
        )
    return found[0]


def _shape(found: re.Match, stored: Sequence[int | None], name: str) -> tuple[int, int, int]:
    if found["height"]:
        height, width, channels = (int(found[k] or 3) for k in ("height", "width", "channels"))
    elif None in stored:
        raise UserError(
            f"the images of {name} are of many sizes: have them made alike, as in {name}@64x64."
        )
    else:
        height, width, channels = map(int, stored)  # type: ignore[arg-type]  # none is None
    if not height * width:
        raise UserError(f"{name} asks for images without a pixel: name a height and a width.")
    return height, width, channels


def _labels(source: Any, label: str, about: str) -> np.ndarray:
    """Reads the labels int32 of a split."""
    labels = np.empty(len(source), np.int32)
    with Progress(len(labels), "label") as progress:
        for start in range(0, len(labels), _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, len(labels)))
            labels[numbers] = [example[label] for example in source.__getitems__(numbers)]
            if len(labels) > 10 * _AT_ONCE:
                progress.advance(len(numbers), f"read of {about}")
    return labels
