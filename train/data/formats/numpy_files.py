"""NumPy's files, read by NumPy without pickle; what does not fit in memory is refused unread."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from train.system.errors import UserError
from train.system.files import reading
from train.system.machine import physical_bytes

_WHAT = ("NumPy's arrays", "get it again, or write it anew with numpy.savez")


def members(path: Path) -> list[str]:
    """Names of the files in a zip archive, such as an `.npz` file.

    Raises:
        UserError: if it is missing, unreadable or damaged.
    """
    with reading(path, *_WHAT), zipfile.ZipFile(path) as archive:
        return archive.namelist()


def read_members(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Reads arrays from a zip archive, such as an `.npz` file, by the names of its `.npy` files.

    Raises:
        UserError: if it is missing, unreadable or damaged or lacks one of the files, if they are no
            arrays or hold objects, or if they do not fit in the memory of this machine.
    """
    with reading(path, *_WHAT), zipfile.ZipFile(path) as archive:
        if missing := [name for name in names if name not in archive.namelist()]:
            raise UserError(f"{path} lacks the file {missing[0]}: get it again, or write it anew.")
        arrays: list[np.ndarray] = []
        for name in names:
            with archive.open(name) as file:
                used = sum(array.nbytes for array in arrays)
                arrays.append(_read(cast(BinaryIO, file), f"{path}, {name},", used))
        return arrays


def read(path: Path) -> np.ndarray:
    """Reads an `.npy` file.

    Raises:
        UserError: see `read_members`.
    """
    with reading(path, *_WHAT), path.open("rb") as file:
        return _read(file, str(path), 0)


def _read(file: BinaryIO, name: str, used: int) -> np.ndarray:
    """Reads an array, after which the file must end; `used` bytes of the memory are taken."""
    # Versions 2 and 3 differ in the encoding of the names of fields alone.
    is_first = npy.read_magic(file) == (1, 0)
    read_header = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise UserError(f"{name} holds objects, not numbers: save the array anew, as integers.")
    promised = math.prod(shape) * dtype.itemsize
    if promised > physical_bytes() - used:
        raise UserError(
            f"{name} promises {promised:,} bytes for the shape {list(shape)}, more than the memory "
            "of this machine has room for: save fewer or smaller images."
        )
    file.seek(0)
    array = np.load(file, allow_pickle=False)
    if file.read(1):
        raise UserError(f"{name} goes on after its array of {promised} bytes: write it anew.")
    return array
