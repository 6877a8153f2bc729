"""CIFAR-10 and CIFAR-100 in their binary version: small photographs in 10 or 100 classes.

They are read from the official archive as it is, which is faster than 60,000 PNG files from
tensorflow-datasets' cache, and has no use for the coarse labels that belong to its CIFAR-100.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from train.data.dataset import Dataset, Split
from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most
from train.data.sources.official import Fingerprint, OfficialFile
from train.system.errors import UserError

MOST_BYTES = 1 << 28
"""Of an archive, unpacked: CIFAR's have 184 million."""

_IMAGE_SHAPE = (32, 32, 3)
_IMAGE_BYTES = 32 * 32 * 3


@dataclass(frozen=True)
class Cifar:
    """A set in CIFAR's binary version: for each image its labels, a byte each, and its pixels.

    Attributes:
        name: the data set's name, here and in tensorflow-datasets.
        archive: the official archive; unpacked, a folder.
        train: the files in it that the training images are in, and the number of images in each.
        test: the same of the test images.
        labels: labels of an image, of which the last, the finest, is its class.
        class_names: one name per class.
        image_shape: `(height, width, channels)`.

    Reference:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    name: str
    archive: OfficialFile
    train: Mapping[str, int]
    test: Mapping[str, int]
    labels: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] = _IMAGE_SHAPE

    @property
    def tfds_name(self) -> str:
        """What tensorflow-datasets calls it."""
        return self.name

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """The archive."""
        return (self.archive,)

    def read(self, paths: Mapping[str, Path]) -> Dataset:
        """Reads the archive, or the folder that was unpacked from it.

        Raises:
            UserError: if it is damaged, or a file in it is missing or of another size.
        """
        path = paths[self.archive.name]
        sizes = {
            name: count * (self.labels + _IMAGE_BYTES)
            for name, count in {**self.train, **self.test}.items()
        }
        contents = _from_folder(path, sizes) if path.is_dir() else _from_archive(path, sizes)
        for name, size in sizes.items():
            if len(contents[name]) != size:
                there = "only" if len(contents[name]) < size else "at least"
                raise UserError(
                    f"{path} has a file {name} of {there} {len(contents[name]):,} bytes, where "
                    f"{size:,} belong: {GET_IT_AGAIN}"
                )
        return Dataset(
            name=self.name,
            train=self._split(b"".join(contents[name] for name in self.train)),
            test=self._split(b"".join(contents[name] for name in self.test)),
            class_names=self.class_names,
        )

    def _split(self, content: bytes) -> Split:
        records = np.frombuffer(content, np.uint8).reshape(-1, self.labels + _IMAGE_BYTES)
        height, width, channels = self.image_shape
        planes = records[:, self.labels :].reshape(-1, channels, height, width)
        return Split(
            images=np.ascontiguousarray(np.moveaxis(planes, 1, -1)),
            labels=records[:, self.labels - 1].astype(np.int32),
        )


def _from_folder(folder: Path, sizes: Mapping[str, int]) -> dict[str, bytearray]:
    """The files of a folder, of each one byte more at most than it should have."""
    contents = {}
    for name, size in sizes.items():
        with opened(folder / name) as file:
            contents[name] = read_at_most(file, size + 1)
    return contents


def _from_archive(path: Path, sizes: Mapping[str, int]) -> dict[str, bytearray]:
    """The same of the files in an archive, whatever folder they are in there."""
    contents = {}
    try:
        with (
            opened(path) as file,
            tarfile.open(fileobj=cast(BinaryIO, _Limited(file, path)), mode="r|") as archive,
        ):
            for member in archive:
                name = member.name.rpartition("/")[2]
                stored = archive.extractfile(member) if name in sizes and member.isfile() else None
                if stored is not None:
                    contents[name] = read_at_most(cast(BinaryIO, stored), sizes[name] + 1)
    # tarfile tells a damaged number in a header as a ValueError.
    except (tarfile.TarError, ValueError) as error:
        raise UserError(f"{path} is no sound tar archive ({error}): {GET_IT_AGAIN}") from error
    if missing := sorted(sizes.keys() - contents.keys()):
        raise UserError(f"{path} lacks the file {missing[0]}: {GET_IT_AGAIN}")
    return contents


class _Limited:
    """A file that refuses to give more than an archive can have, however well it is packed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._left = file, path, MOST_BYTES

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise UserError(
                f"{self._path} unpacks to more than {MOST_BYTES:,} bytes, which no archive of "
                f"CIFAR does: {GET_IT_AGAIN}"
            )
        return content


def _archive(name: str, content: str, fingerprint: Fingerprint, unpacked: str) -> OfficialFile:
    url = f"https://www.cs.toronto.edu/~kriz/{name}"
    return OfficialFile(name, url, content, fingerprint, unpacked)


CIFAR10 = Cifar(
    name="cifar10",
    archive=_archive(
        "cifar-10-binary.tar.gz",
        "CIFAR-10 in its binary version",
        Fingerprint(170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        "cifar-10-batches-bin",
    ),
    train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test={"test_batch.bin": 10_000},
    labels=1,
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
)

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = Cifar(
    name="cifar100",
    archive=_archive(
        "cifar-100-binary.tar.gz",
        "CIFAR-100 in its binary version",
        Fingerprint(168513733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        "cifar-100-binary",
    ),
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    labels=2,
    class_names=tuple(_CIFAR100_CLASSES.split()),
)

SOURCES = {source.name: source for source in (CIFAR10, CIFAR100)}
