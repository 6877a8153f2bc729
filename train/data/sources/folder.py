"""Data of the user's own, as image files: a folder for each class."""

import functools
import itertools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats.images import read_image, read_images
from train.system.errors import UserError
from train.system.machine import physical_bytes

TRAIN, TEST = "train", "test"
VALIDATION = ("val", "validation")

_TEST_EVERY = 5
_NO_IMAGE = re.compile(r"\..*|thumbs\.db|desktop\.ini|__macosx|readme(\..*)?", re.IGNORECASE)
_SHAPE = re.compile(r"(?P<path>.+)@(?P<height>\d{1,5})x(?P<width>\d{1,5})(?:x(?P<channels>[13]))?")


def load(where: str, *, name: str) -> Dataset:
    """Loads image files, whose classes are the folders that they are in.

    Where PATH has the folders `train` and `test`, and it may have `val` or `validation`, each of
    them has a folder for each class. Where it has not, it has these folders itself, and a fifth of
    each class is the test split: of its files, in an order that the generator PCG64 with seed 0
    decides, every fifth from the third on. That is the same on every machine, and for every seed
    of a run.

    Classes are in the order of their names, numbers first and by their value, and the images of a
    class in that of theirs. Hidden files, and those that systems and archives add (`Thumbs.db`,
    `desktop.ini`, `__MACOSX`, `README`), are left out, and how many is told on stderr; every other
    file has to be an image.

    `where` is `PATH`, for images that are all of one size, and all grey or all in colour; or
    `PATH@HEIGHTxWIDTH` or `PATH@HEIGHTxWIDTHxCHANNELS`, to have images of any kind made alike as by
    `read_image`, with 3 channels if nothing else is said.

    Raises:
        UserError: if a folder is missing or empty, a file is no image, the images differ, they do
            not fit in memory, or training and test have other classes.
    """
    path, shape = _parse(where)
    left_out: list[Path] = []
    if (path / TRAIN).is_dir() and (path / TEST).is_dir():
        classes = _classes(path / TRAIN, left_out)
        parts = [TRAIN, TEST, *(part for part in VALIDATION if (path / part).is_dir())][:3]
        for part in parts[1:]:
            if (found := _classes(path / part, left_out)) != classes:
                raise UserError(
                    f"{path / TRAIN} has the classes {', '.join(classes)}, but {path / part} has "
                    f"{', '.join(found)}: make them the same."
                )
        splits = [[_files(path / part / c, left_out) for c in classes] for part in parts]
    else:
        classes = _classes(path, left_out)
        splits = list(_fifths([_files(path / c, left_out) for c in classes]))
    if left_out:
        print(
            f"note: {len(left_out)} files in {path} are left out, which are no images of a class, "
            f"such as {left_out[0].name}",
            file=sys.stderr,
        )
    if shape is None:
        first = splits[0][0][0]
        shape = read_image(first).shape
        read = functools.partial(_read_alike, first=first, shape=shape, name=name)
    else:
        read = functools.partial(read_image, shape=shape)
    count = sum(map(len, itertools.chain(*splits)))
    needed = count * int(np.prod(shape, dtype=np.int64))
    if needed > physical_bytes():
        raise UserError(
            f"{count} images of {_text(shape)} take {needed:,} bytes, more than the memory of this "
            "machine: make them smaller, by ending the name in @HEIGHTxWIDTH."
        )
    train, test, *validation = (_split(files, read, shape) for files in splits)
    return Dataset(name, train, test, tuple(classes), *validation)


def _split(
    files: Sequence[Sequence[Path]], read: Callable[[Path], np.ndarray], shape: Sequence[int]
) -> Split:
    """Reads the files of each class into images and labels."""
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(of_class) for of_class in files])
    return Split(read_images(list(itertools.chain(*files)), shape, read), labels)


def _read_alike(path: Path, *, first: Path, shape: Sequence[int], name: str) -> np.ndarray:
    """Reads an image, which must have the shape of the first."""
    image = read_image(path)
    if image.shape != shape:
        raise UserError(
            f"{path} is {_text(image.shape)} (height, width, channels), but {first} is "
            f"{_text(shape)}: make all images alike, or have it done by naming what you want, as "
            f"in {name}@{_text(shape)}."
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


def _visible(folder: Path, left_out: list[Path]) -> list[Path]:
    """What a folder holds but what is no image nor class, which is added to `left_out`."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): name a folder with a folder of images "
            "for each class."
        ) from error
    left_out += [path for path in inside if _NO_IMAGE.fullmatch(path.name)]
    return [path for path in inside if not _NO_IMAGE.fullmatch(path.name)]


def _classes(folder: Path, left_out: list[Path]) -> list[str]:
    inside = _visible(folder, left_out)
    stray = [path.name for path in inside if not path.is_dir()]
    if stray or not inside:
        raise UserError(
            f"{folder} holds {stray[0] if stray else 'nothing'}, but must hold a folder of images "
            "for each class and nothing else."
        )
    names = [path.name for path in inside]
    return sorted(names, key=lambda name: (int(name) if name.isdecimal() else math.inf, name))


def _files(folder: Path, left_out: list[Path]) -> list[Path]:
    files = _visible(folder, left_out)
    if not files:
        raise UserError(f"{folder} is empty: put the images of this class there, or remove it.")
    return files


def _fifths(files: Sequence[list[Path]]) -> tuple[list[list[Path]], list[list[Path]]]:
    """Divides the files of each class into those for training and those for the test."""
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
        chosen = np.argsort(words, kind="stable")[_TEST_EVERY // 2 :: _TEST_EVERY]
        train.append([path for i, path in enumerate(of_class) if i not in chosen])
        test.append([of_class[i] for i in sorted(chosen)])
    return train, test
