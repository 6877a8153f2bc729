"""Classifying image files with the network of a run."""

import functools
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from capsjax.pretrained import PRESENT
from train.data.formats.images import Picture, read_picture, tell_of_blank
from train.data.sources.folder import NO_IMAGE
from train.learn.network import out_of_memory_is_bad_input
from train.report.loading import load_model, network_of
from train.report.recording import watched
from train.run.checkpoint_files import Which
from train.run.folder import load_run
from train.system.errors import UserError

BATCH = 64
"""Images that are in memory, and classified, at a time."""

BYTES = 2**26
"""Bytes of images at a time, of which fewer are taken where they are large."""


class Prediction(NamedTuple):
    """What a network makes of an image file.

    Attributes:
        path: the file.
        classes: names, as many as an image of the run's data shows, the most present first; where
            it shows any number of them, those that are longer than `PRESENT`.
        lengths: of all class capsules by name, from 0 to 1.
        is_dark_on_light: whether the image has a light border, before it is made to fit.
    """

    path: Path
    classes: list[str]
    lengths: dict[str, float]
    is_dark_on_light: bool

    @property
    def is_recognised(self) -> bool:
        """Whether any class is there: whether one is longer than `PRESENT`."""
        return max(self.lengths.values()) > PRESENT

    def top(self, count: int) -> list[tuple[str, float]]:
        """So many classes with the longest capsules, and their lengths, the longest first."""
        return sorted(self.lengths.items(), key=lambda item: -item[1])[:count]

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        ((first, _),) = self.top(1)
        return {
            "image": str(self.path),
            "class": first,
            "classes": self.classes,
            "length": self.lengths[first],
            "lengths": self.lengths,
            "dark_on_light": self.is_dark_on_light,
        }


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and all image files in the folders that are, in order.

    In a folder, and those in it, an image file is what has the suffix of one; hidden files are left
    out, and those that systems and archives add. How many files are left out is told on stderr.

    Raises:
        UserError: a folder has no image file, or cannot be read.
    """
    files: list[Path] = []
    left_out: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside, others = _inside(path)
        if not inside:
            raise UserError(f"{path} holds no image files: name a folder or a file that is there.")
        files += inside
        left_out += others
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        print(f"note: left out, being no images: {left_out[0]}{more}", file=sys.stderr)
    return files


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from error

    Image.init()
    suffixes = {suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN}
    files: list[Path] = []
    others: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not NO_IMAGE.fullmatch(name))
        for name in sorted(names):
            is_image = Path(name).suffix.lower() in suffixes and not NO_IMAGE.fullmatch(name)
            (files if is_image else others).append(Path(where, name))
    return files, others


def predict(
    folder: Path,
    paths: Sequence[Path],
    *,
    which: Which = "last",
    invert: bool = False,
    refuse: Callable[[UserError], None] | None = None,
    look: Callable[[list[Path], Mapping[str, np.ndarray]], None] | None = None,
) -> Iterator[Prediction]:
    """Classifies image files, one after the other; a batch of them is in memory at a time.

    Args:
        folder: the run.
        paths: the files.
        which: of its checkpoints.
        invert: swap dark and light first.
        refuse: is called for a file that cannot be read, which is left out; by default the error
            is raised.
        look: is called with the files of a batch, the `lengths` `[n, classes]` of their classes,
            and what `watched` returns for them.

    Raises:
        UserError: on bad input, or where an output of the network is not finite.
    """
    run = load_run(folder)
    model = load_model(run, which)
    network = network_of(run, model)
    watch = watched(model, run.config) if look else None
    blank: list[Path] = []
    shown = functools.partial(read_picture, shape=run.image_shape, invert=invert)
    read = _read(paths, shown, refuse)
    batch = max(1, min(BATCH, BYTES // math.prod(run.image_shape)))
    while some := list(itertools.islice(read, batch)):
        names, images = (
            [path for path, _ in some],
            np.stack([picture.pixels for _, picture in some]),
        )
        with out_of_memory_is_bad_input(len(images), "take a device with more memory"):
            found = network.classified(network.lengths(images))
            for path, lengths in zip(names, found.lengths, strict=True):
                if not np.isfinite(lengths).all():
                    raise UserError(
                        f"the outputs of the network in {folder} for {path} are not finite, so "
                        "that no class can be named: train it anew with a lower --learning-rate."
                    )
            seen = watch(images) if watch else {}
        if look:
            look(names, {"lengths": found.lengths, **seen})
        for (path, picture), lengths, present in zip(
            some, found.lengths, found.present, strict=True
        ):
            if picture.is_blank:
                blank.append(path)
            yield Prediction(
                path,
                list(present),
                dict(zip(run.class_names, map(float, lengths), strict=True)),
                picture.is_dark_on_light,
            )
    tell_of_blank(blank)


def _read(
    paths: Iterable[Path],
    read: Callable[[Path], Picture],
    refuse: Callable[[UserError], None] | None,
) -> Iterator[tuple[Path, Picture]]:
    for path in paths:
        try:
            yield path, read(path)
        except UserError as error:
            if refuse is None:
                raise
            refuse(error)
