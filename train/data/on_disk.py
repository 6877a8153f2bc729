"""Examples that stay in their files, and are read from there when they are asked for."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import jax
import numpy as np

from train.data.balance import of_each_class
from train.data.dataset import Batch, Examples, Split, digest
from train.data.formats.images import as_text, is_blank, tell_of_blank, tell_of_dark
from train.system.errors import UserError
from train.system.machine import available_cores, physical_bytes
from train.system.progress import Progress

T = TypeVar("T")

_SHOWN = 2_000
"""Images, from which on the time to read them is worth a line."""

_AT_ONCE = 1_000

_PROVED = 256
"""Images of a split, evenly spread, whose contents its fingerprint is of."""

_TOLD = 5
_THREADS = 16


class Reader(Protocol):
    """Reads the images of a data set by their number, in this process and in others."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of all of them."""
        ...

    def read(self, numbers: Sequence[int]) -> Sequence[np.ndarray]:
        """Reads images uint8 `[height, width, channels]`.

        Raises:
            UserError: if a file is missing or damaged, or holds an image of another shape.
        """
        ...

    def name(self, number: int) -> str:
        """What a message calls an image."""
        ...

    def identity(self, number: int) -> str:
        """What an image is known by without reading it, wherever its files are."""
        ...

    def content(self, number: int) -> bytes:
        """Reads an image as it is stored.

        Raises:
            UserError: if its file cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class OnDisk(Examples):
    """Images of one class each, of which none stays in memory.

    Attributes:
        reader: where they are.
        numbers: int64 [n], what the reader calls each example.
        labels: int32 [n], the index of each image's class.
    """

    reader: Reader
    numbers: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def source_labels(self) -> np.ndarray:
        return self.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.reader.image_shape

    @property
    def constants(self) -> dict[str, np.ndarray]:
        raise UserError(f"{len(self)} images are in files, where they are needed in memory.")

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.image_shape, dtype=np.int64)) + self.labels.nbytes

    @functools.cached_property
    def fingerprint(self) -> str:
        # Of all contents it would take as long as an epoch, also where a run is only measured.
        some = min(len(self), _PROVED)
        proved = self.numbers[np.arange(some) * len(self) // max(some, 1)]
        return digest(
            self.labels.tobytes(),
            *(self.reader.identity(int(n)) for n in self.numbers),
            *(digest(self.reader.content(int(n))) for n in proved),
        )

    def select(self, constants: Mapping[str, jax.Array], indices: jax.Array) -> Batch:
        raise NotImplementedError("images in files are gathered on the host")

    def gather(self, indices: np.ndarray) -> Batch:
        read = self.reader.read(self.numbers[indices].tolist())
        images = np.stack(read) if read else np.empty((0, *self.image_shape), np.uint8)
        return Batch(images, self.labels[indices])

    def subset(self, count: int) -> Self:
        return self.take(of_each_class(self.labels, count))

    def take(self, images: np.ndarray) -> Self:
        return dataclasses.replace(self, numbers=self.numbers[images], labels=self.labels[images])

    def in_memory(self) -> Split:
        """Reads all images, and tells on stderr of those that show nothing.

        Raises:
            UserError: if they do not fit in memory, or a file is damaged.
        """
        count = len(self)
        if self.nbytes > physical_bytes():
            raise UserError(
                f"{count} images of {as_text(self.image_shape)} take {self.nbytes:,} bytes, more "
                "than the memory of this machine: make them smaller, by ending the name in "
                "@HEIGHTxWIDTH, or have them read when they are needed, with --feed streaming."
            )
        images = np.empty((count, *self.image_shape), np.uint8)
        blank: list[str] = []
        with Progress(count, "image") as progress:
            if count >= _SHOWN:
                progress.begin(f"reading {count:,} images")
            for start in range(0, count, _AT_ONCE):
                places = np.arange(start, min(start + _AT_ONCE, count))
                images[places] = self.gather(places).images
                for place in places:
                    if is_blank(images[place]):
                        blank.append(self.reader.name(int(self.numbers[place])))
                if count >= _SHOWN:
                    progress.advance(len(places), "read")
        tell_of_blank(blank)
        if count:
            some = self.reader.name(int(self.numbers[0]))
            tell_of_dark(f"{some} and the other images of its split", int(images.max()))
        return Split(images, self.labels)


def in_threads(read: Callable[[T], np.ndarray], items: Iterable[T]) -> list[np.ndarray]:
    """Reads images, several at once: that waits for the disk, and hardly takes Python's lock.

    Raises:
        UserError: if some do, of the first of them and how many there are.
    """
    reading = [_threads().submit(read, item) for item in items]
    errors = [error for some in reading if isinstance(error := some.exception(), UserError)]
    if len(errors) > 1:
        told = " ".join(map(str, errors[:_TOLD]))
        more = f" There are {len(errors) - _TOLD} more." if len(errors) > _TOLD else ""
        raise UserError(told + more) from errors[0]
    return [some.result() for some in reading]


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads of this process, which live as long as it does."""
    return ThreadPoolExecutor(min(_THREADS, max(2, available_cores())), "read-images")
