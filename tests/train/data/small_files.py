"""Small files in the formats that data sets are published in, for the tests that read them."""

import dataclasses
import functools
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from train.data.official import OfficialFile, Source
from train.data.sources import mnist, mnist_corrupted, qmnist, smallnorb, svhn

NORB_MAGIC = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array of bytes, or of integers of four bytes, not gzipped."""
    code, kind = (12, ">i4") if array.dtype == np.int32 else (8, np.uint8)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(kind).tobytes()


def norb_bytes(array: np.ndarray) -> bytes:
    """A NORB matrix of bytes or 32-bit integers."""
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    header = struct.pack(f"<{2 + len(sizes)}i", NORB_MAGIC[array.dtype], array.ndim, *sizes)
    return header + array.astype(array.dtype.newbyteorder("<")).tobytes()


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_with_header(header: bytes, elements: bytes) -> bytes:
    """An array with any header, as another program than NumPy may write it."""
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + elements


def mat_bytes(variables: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, dict(variables), do_compression=True)
    return file.getvalue()


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """A gzipped tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_bytes(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def official(file: OfficialFile, content: bytes) -> OfficialFile:
    """The same file, if that were its content, on a host that can never exist."""
    kind = "md5" if file.size is None else "sha256"
    checksum = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    size = None if file.size is None else len(content)
    url = f"http://host.invalid/{file.name}"
    return dataclasses.replace(file, url=url, size=size, checksum=checksum)


def placed(source: Source, contents: Mapping[OfficialFile, bytes], folder: Path) -> Source:
    """Writes files into a folder, and returns the source that they are official for."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file.name).write_bytes(content)
    files = tuple(official(file, content) for file, content in contents.items())
    return dataclasses.replace(source, files=files)


def small_mnist(
    folder: Path,
    source: Source = mnist.MNIST,
    train_size: int = 30,
    test_size: int = 12,
    largest_label: int = 9,
) -> Source:
    """The four files of a set in MNIST's format with so many images, in a folder."""
    rng = np.random.default_rng(1)
    arrays = []
    for size in (train_size, test_size):
        arrays.append(rng.integers(0, 256, (size, 28, 28), dtype=np.uint8))
        arrays.append(np.arange(size, dtype=np.uint8) % (largest_label + 1))
    contents = [gzip.compress(idx_bytes(array), mtime=0) for array in arrays]
    return placed(source, dict(zip(source.files, contents, strict=True)), folder)


def small_qmnist(folder: Path, source: Source = qmnist.SOURCES[0]) -> Source:
    """The four files of QMNIST, with 40 images for training, 10,010 for the test, hardly lit."""
    arrays: list[np.ndarray] = []
    for size in (40, 10_010):
        labels = np.full((size, 8), 70_000, np.int32)
        labels[:, 0] = np.arange(size) % 10
        images = np.zeros((size, 28, 28), np.uint8)
        images[:, 3, 4] = np.arange(size) % 251
        arrays += [images, labels]
    contents = [gzip.compress(idx_bytes(array), mtime=0) for array in arrays]
    return placed(source, dict(zip(source.files, contents, strict=True)), folder)


def small_kuzushiji_49(folder: Path) -> Source:
    """The four files of Kuzushiji-49, with an image or two of each class."""
    contents = {}
    for file, size in zip(mnist.KUZUSHIJI_49.files, (98, 98, 49, 49), strict=True):
        is_images = "imgs" in file.name
        array = random(size, 28, 28, seed=size) if is_images else np.arange(size, dtype="u1") % 49
        contents[file] = npz_bytes(array)
    return placed(mnist.KUZUSHIJI_49, contents, folder)


def npz_bytes(array: np.ndarray) -> bytes:
    """A file of one array, without a name."""
    file = io.BytesIO()
    np.savez_compressed(file, array)
    return file.getvalue()


def small_emnist(folder: Path, source: Source, train_size: int = 30, test_size: int = 12) -> Source:
    """The archive of EMNIST with one part of it, lying on its side, in a folder."""
    part, first = (source.read.keywords[name] for name in ("part", "first_label"))
    members = {}
    for kind, size in (("train", train_size), ("test", test_size)):
        images = np.swapaxes(random(size, 28, 28, seed=size), 1, 2)
        labels = np.arange(size) % len(source.class_names) + first
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"gzip/emnist-{part}-{kind}-{what}-ubyte.gz"
            members[name] = gzip.compress(idx_bytes(array), mtime=0)
    return placed(source, {source.files[0]: zip_bytes(members)}, folder)


VIEWPOINTS = np.array(
    [
        (instance, elevation, azimuth, 0)
        for instance in (4, 6)
        for elevation in range(9)
        for azimuth in range(0, 36, 2)
    ],
    np.int32,
)
"""Each viewpoint of smallNORB twice."""


def small_smallnorb(folder: Path, source: Source = smallnorb.SOURCES[0], side: int = 8) -> Source:
    """The six files of smallNORB, with an image for each row of `VIEWPOINTS`, in a folder.

    The pixels of image `i` of the training part are all `i % 200`; of the test part, one more.
    """
    count = len(VIEWPOINTS)
    contents = {}
    for file in source.files:
        is_test = int("testing" in file.name)
        pixels = (np.arange(count) % 200 + is_test)[:, None, None, None]
        array = {
            "dat": np.broadcast_to(pixels, (count, 2, side, side)).astype(np.uint8),
            "cat": (np.arange(count, dtype=np.int32) + is_test) % 5,
            "info": VIEWPOINTS,
        }[file.name.rpartition("-")[2].split(".")[0]]
        contents[file] = gzip.compress(norb_bytes(array), mtime=0)
    return placed(source, contents, folder)


def cifar_records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """A file of CIFAR's binary version: labels, then the planes of the pixels."""
    planes = np.moveaxis(images, -1, 1).reshape(len(images), -1)
    return np.concatenate([*(x[:, None].astype(np.uint8) for x in labels), planes], 1).tobytes()


def cifar_files(source: Source, each: int) -> dict[str, bytes]:
    """The binary files of a small CIFAR: image `i` of file `f` is of class `(i + f)` modulo all."""
    layout, files = source.read.keywords, {}
    for number, name in enumerate([*layout["train"], *layout["test"]]):
        fine = (np.arange(each) + number) % len(source.class_names)
        labels = [fine] if layout["labels"] == 1 else [fine // 5, fine]
        files[name] = cifar_records(random(each, 32, 32, 3, seed=number), *labels)
    return files


def small_cifar(folder: Path, source: Source, each: int = 4) -> Source:
    """An archive of CIFAR with so many images in each file, in a folder."""
    (archive,) = source.files
    content = tar_bytes(
        {f"{archive.unpacked}/{k}": v for k, v in cifar_files(source, each).items()}
    )
    counts = {part: dict.fromkeys(source.read.keywords[part], each) for part in ("train", "test")}
    small = dataclasses.replace(source, read=functools.partial(source.read, **counts))
    return placed(small, {archive: content}, folder)


def small_svhn(folder: Path, train: int = 12, test: int = 10) -> Source:
    """The two files of SVHN with so many images, whose labels go from 1 to 10 again and again."""
    contents = {}
    for file, count in zip(svhn.SVHN.files, (train, test), strict=True):
        images = random(count, 32, 32, 3, seed=count)
        labels = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
        contents[file] = mat_bytes({"X": np.moveaxis(images, 0, -1), "y": labels})
    return placed(svhn.SVHN, contents, folder)


def mnist_c_files(corruption: str, train: int = 12, test: int = 10) -> dict[str, bytes]:
    """The arrays of a corruption, by their path in the archive."""
    return {
        f"mnist_c/{corruption}/{split}_{what}.npy": npy_bytes(array)
        for split, count in (("train", train), ("test", test))
        for what, array in (
            ("images", random(count, 28, 28, 1, seed=count)),
            ("labels", np.arange(count) % 10),
        )
    }


def small_mnist_c(folder: Path, source: Source) -> Source:
    """The archive of MNIST-C with a few images of one corruption."""
    content = zip_bytes(mnist_c_files(source.name.rpartition("/")[2]))
    return placed(source, {mnist_corrupted.ARCHIVE: content}, folder)


def affnist_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A file as they are: a struct, an image in each column, and fields that nobody asks for."""
    one_of_n = np.eye(10)[:, labels.astype(int) % 10]
    struct = {"label_one_of_n": one_of_n, "image": images, "label_int": labels[None]}
    return mat_bytes({"affNISTdata": struct})


def small_affnist(path: Path, count: int = 11) -> None:
    """affNIST's test images in one file, with so many of them."""
    path.write_bytes(affnist_bytes(random(1600, count), np.arange(count) % 10))
