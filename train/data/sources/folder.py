"""Data of the user's own, as image files: a folder for each class."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats.images import read_image, read_image_as_it_is
from train.system.errors import UserError
from train.system.machine import physical_bytes

TRAIN, TEST = "train", "test"

_TEST_EVERY = 5
_SHAPE = re.compile(r"(?P<path>.+)@(?P<height>\d{1,5})x(?P<width>\d{1,5})(?:x(?P<channels>[13]))?")


def load(where: str, *, name: str) -> Dataset:
    """Loads image files, whose classes are the folders that they are in.

    Where PATH has the folders `train` and `test`, each of them has a folder for each class. Where
    it has not, it has these folders itself, and a fifth of each class is the test split: of its
    files, in an order that the generator PCG64 with seed 0 decides, every fifth from the third on.
    That is the same on every machine, and for every seed of a run.

    Classes are in the order of their names, and so are the images of a class. Hidden files are left
    out; every other file has to be an image.

    Args:
        where: `PATH`, for images that are all of one size, and all grey or all in colour; or
            `PATH@HEIGHTxWIDTH` or `PATH@HEIGHTxWIDTHxCHANNELS`, to have images of any kind made
            alike as by `read_image`, with 3 channels if nothing else is said.
        name: what the set is called.

    Raises:
        UserError: if a folder is missing or empty, a file is no image, the images differ, they do
            not fit in memory, or training and test have other classes.
    """
    path, shape = _parse(where)
    if (path / TRAIN).is_dir() and (path / TEST).is_dir():
        classes = _classes(path / TRAIN)
        if _classes(path / TEST) != classes:
            raise UserError(
                f"{path / TRAIN} has the classes {', '.join(classes)}, but {path / TEST} has "
                f"{', '.join(_classes(path / TEST))}: make them the same."
            )
        train, test = ([_files(path / part / c) for c in classes] for part in (TRAIN, TEST))
    else:
        classes = _classes(path)
        train, test = _fifths([_files(path / c) for c in classes])
    reader = _Reader(name, train[0][0], shape)
    reader.require_room(sum(map(len, [*train, *test])))
    return Dataset(name, reader.split(train), reader.split(test), tuple(classes))


class _Reader:
    """Reads files into images of one shape.

    Args:
        name: of the set, without a shape.
        first: the file whose shape all others must have, if none is named.
        shape: `(height, width, channels)` that images are made to have, if one is named.
    """

    def __init__(self, name: str, first: Path, shape: tuple[int, int, int] | None) -> None:
        self._name, self._first, self._named = name, first, shape
        self._shape = read_image_as_it_is(first).shape if shape is None else shape

    def require_room(self, count: int) -> None:
        """Refuses more images than this machine's memory holds."""
        needed = count * int(np.prod(self._shape, dtype=np.int64))
        if needed > physical_bytes():
            raise UserError(
                f"{count} images of {_text(self._shape)} take {needed:,} bytes, more than the "
                "memory of this machine: make them smaller, by ending the name in @HEIGHTxWIDTH."
            )

    def split(self, files: Sequence[Sequence[Path]]) -> Split:
        """The images of the files of each class, and their labels."""
        paths = [path for of_class in files for path in of_class]
        images = np.empty((len(paths), *self._shape), np.uint8)
        for index, path in enumerate(paths):
            images[index] = self._read(path)
        labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(c) for c in files])
        return Split(images, labels)

    def _read(self, path: Path) -> np.ndarray:
        if self._named is not None:
            return read_image(path, self._named)
        image = read_image_as_it_is(path)
        if image.shape != self._shape:
            wanted = _text(self._shape)
            raise UserError(
                f"{path} is {_text(image.shape)} (height, width, channels), but {self._first} is "
                f"{wanted}: make all images alike, or have it done by naming what you want, as in "
                f"{self._name}@{wanted}."
            )
        return image


def _parse(where: str) -> tuple[Path, tuple[int, int, int] | None]:
    found = _SHAPE.fullmatch(where)
    if found is None:
        return Path(where), None
    height, width, channels = (int(found[k] or 3) for k in ("height", "width", "channels"))
    if not height * width:
        raise UserError(f"{where} asks for images without a pixel: name a height and a width.")
    return Path(found["path"]), (height, width, channels)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): name a folder with a folder of images "
            "for each class."
        ) from error


def _classes(folder: Path) -> list[str]:
    inside = _visible(folder)
    classes = [path.name for path in inside if path.is_dir()]
    if not classes or len(classes) < len(inside):
        stray = next((path.name for path in inside if not path.is_dir()), "nothing")
        raise UserError(
            f"{folder} holds {stray}, but must hold a folder of images for each class and nothing "
            "else."
        )
    return classes


def _files(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise UserError(f"{folder} is empty: put the images of this class there, or remove it.")
    return files


def _fifths(files: Sequence[list[Path]]) -> tuple[list[list[Path]], list[list[Path]]]:
    """The files of each class that training and test get."""
    train, test = [], []
    for of_class in files:
        if len(of_class) < _TEST_EVERY // 2 + 1:
            raise UserError(
                f"{of_class[0].parent} has {len(of_class)} images, too few to set some aside for "
                f"the test: have {_TEST_EVERY // 2 + 1} at least, or make folders {TRAIN} and "
                f"{TEST}."
            )
        # Raw words, which NumPy promises to be the same in every version.
        words = np.random.PCG64(0).random_raw(len(of_class))
        chosen = set(np.argsort(words, kind="stable")[_TEST_EVERY // 2 :: _TEST_EVERY].tolist())
        train.append([path for i, path in enumerate(of_class) if i not in chosen])
        test.append([path for i, path in enumerate(of_class) if i in chosen])
    return train, test
