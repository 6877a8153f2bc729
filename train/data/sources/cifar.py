"""CIFAR-10 and CIFAR-100: small photographs in 10 or 100 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. They are read from the
official archive as it is, the binary version or the one for Python, which is faster than 60,000 PNG
files from tensorflow-datasets' cache, and has no use for the coarse labels that belong to its
CIFAR-100.
"""

import functools
import importlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from train.data.dataset import Split
from train.data.official import OfficialFile, Source
from train.system.errors import UserError
from train.system.files import reading

_FOR_PYTHON = ("-py", "-python")
_SIDE, _CHANNELS = 32, 3
_IMAGE_BYTES = _CHANNELS * _SIDE * _SIDE


def read(
    path: Path, *, train: Mapping[str, int], test: Mapping[str, int], labels: int
) -> tuple[Split, Split]:
    """Reads files of the binary version: for each image its labels, a byte each, and its pixels.

    They are in the archive, verified before, or in the folder that was unpacked from it. `train`
    and `test` are the names of files, and how many images are in each; of the labels of an image
    the last, the finest, is its class. The version for Python has files of the same names without
    their ending, in which images and labels are apart.

    Raises:
        UserError: if a file in the folder is missing or of another size.
    """
    if path.name.partition(".")[0].endswith(_FOR_PYTHON):
        return _of_python(path, train), _of_python(path, test)
    record = labels + _IMAGE_BYTES
    sizes = {name: count * record for name, count in {**train, **test}.items()}
    contents = _read_folder(path, sizes) if path.is_dir() else _read_archive(path, sizes)

    def split(names: Mapping[str, int]) -> Split:
        content = b"".join(contents[name] for name in names)
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        planes = records[:, labels:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
        images = np.ascontiguousarray(np.moveaxis(planes, 1, -1))
        return Split(images, records[:, labels - 1].astype(np.int32))

    return split(train), split(test)


def _read_folder(folder: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    contents = {}
    with reading(folder, "the binary version of CIFAR", "unpack it again"):
        for name, size in sizes.items():
            path = folder / name
            if (found := path.stat().st_size) != size:
                raise UserError(
                    f"{path} has {found:,} bytes, where {size:,} belong: unpack it again."
                )
            contents[name] = path.read_bytes()
    return contents


def _read_archive(path: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Reads the same files of an archive, in the order in which they are in there."""
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in sizes:
                contents[name] = cast(BinaryIO, archive.extractfile(member)).read()
    return contents


def _of_python(path: Path, names: Mapping[str, int]) -> Split:
    """Reads files of the version for Python, pickled arrays and lists, and runs nothing of them."""
    stems = [name.removesuffix(".bin") for name in names]
    with reading(path, "the version of CIFAR for Python", "get it again"):
        if path.is_dir():
            contents = {stem: (path / stem).read_bytes() for stem in stems}
        else:
            contents = _read_archive(path, dict.fromkeys(stems, 0))
        read = [_Unpickler(io.BytesIO(contents[stem]), encoding="bytes").load() for stem in stems]
        planes = np.concatenate([each[b"data"] for each in read])
        labels = [each[b"labels" if b"labels" in each else b"fine_labels"] for each in read]
        planes = planes.reshape(-1, _CHANNELS, _SIDE, _SIDE)
        images = np.ascontiguousarray(np.moveaxis(planes, 1, -1))
        return Split(images, np.concatenate(labels).astype(np.int32))


class _Unpickler(pickle.Unpickler):
    """Makes arrays of NumPy, and calls nothing else that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"ndarray": np.ndarray, "dtype": np.dtype}
        if name == "_reconstruct" and module.startswith("numpy."):
            return importlib.import_module("numpy._core.multiarray")._reconstruct
        if module == "numpy" and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
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


def _source(
    number: int,
    binary: tuple[int, str, str],
    for_python: tuple[int, str, str],
    class_names: str,
    **layout: Any,
) -> Source:
    """A set in an archive: size, checksum and folder of each; how `read` finds the images in it."""
    site = "https://www.cs.toronto.edu/~kriz/"
    name = f"cifar-{number}-python.tar.gz"
    other = OfficialFile(name, site + name, f"CIFAR-{number} for Python", *for_python)
    name = f"cifar-{number}-binary.tar.gz"
    content = f"CIFAR-{number} in its binary version"
    archive = OfficialFile(name, site + name, content, *binary, other)
    return Source(
        name=f"cifar{number}",
        files=(archive,),
        read=functools.partial(read, **layout),
        image_shape=(_SIDE, _SIDE, _CHANNELS),
        class_names=tuple(class_names.split()),
    )


CIFAR10 = _source(
    10,
    (
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "cifar-10-batches-bin",
    ),
    (
        170498071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-batches-py",
    ),
    _CIFAR10_CLASSES,
    train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test={"test_batch.bin": 10_000},
    labels=1,
)
CIFAR100 = _source(
    100,
    (
        168513733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        "cifar-100-binary",
    ),
    (
        169001437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        "cifar-100-python",
    ),
    _CIFAR100_CLASSES,
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    labels=2,
)

SOURCES = (CIFAR10, CIFAR100)
