"""Data of the user's own, as image files: a folder for each class."""

import hashlib
import math
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.data.dataset import Dataset
from train.data.formats.images import as_text, read_image
from train.data.on_disk import OnDisk, in_threads
from train.system.errors import UserError
from train.system.files import reading

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The splits that folders of these names hold, in capital or small letters."""

_TEST_SHARE = 5
"""One of so many files is a test image, where there is no folder of these."""

_LEAST = 3
NO_IMAGE = re.compile(r"\..*|thumbs\.db|desktop\.ini|__macosx|readme(\..*)?", re.IGNORECASE)
"""The names of hidden files, and of what systems and archives add."""

_SHAPE = re.compile(r"(?P<path>.+)@(?P<height>\d{1,5})x(?P<width>\d{1,5})(?:x(?P<channels>[13]))?")


def load(where: str, *, name: str) -> Dataset:
    """Finds image files, whose classes are the folders that they are in; reads only the first.

    Where PATH has the folders `train` and `test`, and it may have `val` (or what else `PARTS` has),
    each of them has a folder for each class. Where it has not, it has these folders itself. Without
    a folder of test images, about a fifth of each class are these: the files the SHA-256 of whose
    names says so, so that hardly any changes sides when others come or go. A few do where a class
    is small: it has one test image at least, and two fifths at most.

    Classes are in the order of their names, numbers first and by their value, and the images of a
    class in that of theirs. Hidden files, and those that systems and archives add (`Thumbs.db`,
    `desktop.ini`, `__MACOSX`, `README`), are left out, and how many is told on stderr; every other
    file has to be an image.

    `where` is `PATH`, for images that are all of one size, and all grey or all in colour; or
    `PATH@HEIGHTxWIDTH` or `PATH@HEIGHTxWIDTHxCHANNELS`, to have images of any kind made alike as by
    `read_image`, with 3 channels if nothing else is said.

    Raises:
        UserError: if a folder is missing or empty, the first file is no image, or training and
            test have other classes. Examples raise it where they are read.
    """
    path, shape = _parse(where)
    found = _Found()
    inside = found.visible(path)
    parts = _parts(inside)
    folders = {part: found.classes(folder) for part, folder in parts.items()}
    folders = folders or {"train": found.classes(path)}
    classes = folders["train"].keys()
    for part, of_part in folders.items():
        for has, other, more in (
            ("train", part, classes - of_part.keys()),
            (part, "train", of_part.keys() - classes),
        ):
            if more:
                rest = f" and {len(more) - 5} more" if len(more) > 5 else ""
                raise UserError(
                    f"{parts[has]} has the classes {', '.join(sorted(more)[:5])}{rest}, which "
                    f"{parts[other]} has not: make them the same."
                )
    splits = {
        part: [found.files(folder) for folder in of_part.values()]
        for part, of_part in folders.items()
    }
    others = [entry.name for entry in inside if Path(entry.path) not in parts.values()]
    if parts and others:
        _note(f"what {path} holds beside {', '.join(parts)} is left out: {', '.join(others[:5])}")
    if "test" not in splits:
        both = [_divided(files) for files in splits["train"]]
        splits |= {"train": [train for train, _ in both], "test": [test for _, test in both]}
        _note(
            f"{path} has no folder `test`: about a fifth of the images in "
            f"{parts.get('train', path)} are the test images"
        )
    if found.left_out:
        _note(
            f"files in {path} that are left out, being no images of a class: "
            f"{len(found.left_out)}, such as {next(iter(found.left_out.values()))}"
        )
    files = [file for of_split in splits.values() for of_class in of_split for file in of_class]
    height, width, channels = shape or read_image(Path(files[0].path)).shape
    reader = _ImageFiles(path, files, (height, width, channels), name, made_alike=bool(shape))
    start, examples = 0, {}
    for split, of_split in splits.items():
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), list(map(len, of_split)))
        examples[split] = OnDisk(reader, start + np.arange(len(labels)), labels)
        start += len(labels)
    return Dataset(name, class_names=tuple(classes), **examples)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


class _File(NamedTuple):
    path: str
    bytes: int


@dataclass(frozen=True)
class _ImageFiles:
    """Reads the files, see `Reader`."""

    folder: Path
    files: Sequence[_File]
    image_shape: tuple[int, int, int]
    dataset: str
    made_alike: bool

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return in_threads(self._image, numbers)

    def _image(self, number: int) -> np.ndarray:
        path = Path(self.files[number].path)
        if self.made_alike:
            return read_image(path, self.image_shape)
        image = read_image(path)
        if image.shape != self.image_shape:
            wanted = as_text(self.image_shape)
            raise UserError(
                f"{path} is {as_text(image.shape)} (height, width, channels), but "
                f"{self.files[0].path} is {wanted}: make all images alike, or have it done by "
                f"naming what you want, as in {self.dataset}@{wanted}."
            )
        return image

    def name(self, number: int) -> str:
        return self.files[number].path

    def identity(self, number: int) -> str:
        path, size = self.files[number]
        return f"{_composed(path.removeprefix(str(self.folder)))} {size}"

    def content(self, number: int) -> bytes:
        path = Path(self.files[number].path)
        with reading(path, "an image", "make it readable"):
            return path.read_bytes()


def _parse(where: str) -> tuple[Path, tuple[int, int, int] | None]:
    found = _SHAPE.fullmatch(where)
    if found is None:
        return Path(where).expanduser(), None
    height, width, channels = (int(found[k] or 3) for k in ("height", "width", "channels"))
    if not height * width:
        raise UserError(f"{where} asks for images without a pixel: name a height and a width.")
    return Path(found["path"]).expanduser(), (height, width, channels)


def _composed(name: str) -> str:
    """A name as most systems write it: some take letters with accents apart."""
    return unicodedata.normalize("NFC", name)


def _parts(inside: Sequence[os.DirEntry]) -> dict[str, Path]:
    """The folder of each split, by its name; none where the folders are classes."""
    parts: dict[str, Path] = {}
    folders = [entry for entry in inside if entry.is_dir()]
    for entry in folders:
        part = PARTS.get(entry.name.lower())
        if part in parts:
            raise UserError(
                f"{entry.path} and {parts[part]} are both folders of {part} images: put them "
                "together."
            )
        if part:
            parts[part] = Path(entry.path)
    if "train" not in parts or len(parts) == 1 < len(folders):
        return {}
    return dict(sorted(parts.items(), key=lambda part: list(PARTS.values()).index(part[0])))


@dataclass
class _Found:
    """Goes through the folders of a set, and counts what is no image nor class."""

    left_out: dict[str, str] = field(default_factory=dict)  # names by path

    def visible(self, folder: Path) -> list[os.DirEntry]:
        """What a folder holds besides these, in the order of the names."""
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: _composed(entry.name))
        except OSError as error:
            raise UserError(
                f"{folder} cannot be read ({error.strerror}): name a folder with a folder of "
                "images for each class."
            ) from error
        out = (entry for entry in inside if NO_IMAGE.fullmatch(entry.name))
        self.left_out |= {entry.path: entry.name for entry in out}
        return [entry for entry in inside if not NO_IMAGE.fullmatch(entry.name)]

    def classes(self, folder: Path) -> dict[str, Path]:
        """The folder of each class, by its name, in their order."""
        inside = self.visible(folder)
        stray = [entry.name for entry in inside if not entry.is_dir()]
        if stray or not inside:
            raise UserError(
                f"{folder} holds {stray[0] if stray else 'nothing'}, but must hold a folder of "
                "images for each class and nothing else."
            )
        found: dict[str, Path] = {}
        for entry in inside:
            name = _composed(entry.name)
            if name in found:
                raise UserError(
                    f"{folder} has two folders {name}, whose names are the same letters written in "
                    "two ways: put their images together."
                )
            found[name] = Path(entry.path)

        def place(name: str) -> tuple[float, str]:
            return (int(name) if name.isdecimal() else math.inf, name)

        return {name: found[name] for name in sorted(found, key=place)}

    def files(self, folder: Path) -> list["_File"]:
        """The images of a class."""
        inside = self.visible(folder)
        for entry in inside:
            if entry.is_dir():
                raise UserError(
                    f"{entry.path} is a folder, where the images of the class {folder.name} should "
                    "be: name the folder in which each folder is a class, with its images in it."
                )
        try:
            files = [_File(entry.path, entry.stat().st_size) for entry in inside]
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be read ({error.strerror}): mend it, or remove it from "
                f"the images of the class {folder.name}."
            ) from error
        if not files:
            raise UserError(
                f"{folder} is empty: put the images of this class there, or remove the class from "
                "all parts."
            )
        return files


def _divided(files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """The images of a class for training, and those for the test."""
    if len(files) < _LEAST:
        raise UserError(
            f"{Path(files[0].path).parent} has {len(files)} images, too few to set some aside for "
            f"the test: have {_LEAST} at least, or make folders train and test."
        )

    def draw(file: _File) -> int:
        name = _composed(Path(file.path).name).encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(name).digest()[:8])

    drawn = sorted(map(draw, files))
    # Of a small class none may come out, or most: it has one at least, and two fifths at most.
    most = drawn[max(1, 2 * len(files) // _TEST_SHARE)]
    limit = max(min(2**64 // _TEST_SHARE, most), drawn[0] + 1)
    train = [file for file in files if draw(file) >= limit]
    return train, [file for file in files if draw(file) < limit]
