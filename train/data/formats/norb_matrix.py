"""The binary matrix format of the NORB sets, which MATLAB does not read in spite of its `.mat`.

    magic       0x1E3D4C55 for unsigned bytes, 0x1E3D4C54 for signed 32-bit integers
    dimensions  their number, then the size of each, at least three of which stand there
    elements    row-major, the last dimension fastest

All integers are in the byte order of the machine that wrote them, which the magic shows; that is
little-endian in the published files. `packed` says how a header that promises too much
is met.

Reference:
    Y. LeCun, F. J. Huang, L. Bottou, "Learning Methods for Generic Object Recognition with
    Invariance to Pose and Lighting", CVPR 2004; the format is described where the set is published.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most, read_rest
from train.system.errors import UserError

_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype(np.uint8), 0x1E3D4C54: np.dtype(np.int32)}
_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
_SIZES_AT_LEAST = 3
MOST_BYTES = 1 << 29
"""Elements of a file: a little more than the images of smallNORB have."""


def read(path: str | Path, *, dtype: type[np.generic], ndim: int) -> np.ndarray:
    """Reads one file, gzipped or not.

    Args:
        path: the file.
        dtype: what it must hold, uint8 or int32.
        ndim: number of dimensions it must have.

    Returns:
        The array, of the shape that the header gives.

    Raises:
        UserError: if the file is missing, unreadable, corrupted, truncated, not in this format, of
            another element type or number of dimensions, or longer or shorter than its header says.
    """
    path = Path(path)
    with opened(path) as file:
        stored, shape = _read_header(file, path, ndim)
        if stored.newbyteorder("=") != dtype:
            raise UserError(
                f"{path} holds {stored.newbyteorder('=')}, but {np.dtype(dtype)} was expected: "
                "check that the files have not been swapped."
            )
        array = read_rest(file, path, shape, stored, most=MOST_BYTES)
    return array.astype(dtype, copy=False)


def _read_header(file: BinaryIO, path: Path, ndim: int) -> tuple[np.dtype, tuple[int, ...]]:
    magic = bytes(read_at_most(file, 4))
    order = next((o for o in _ORDERS if _number(magic, o) in _TYPES), None)
    if order is None:
        raise UserError(
            f"{path} is not a NORB matrix of bytes or integers: it begins with 0x{magic.hex()}, "
            f"which is none of the known magic numbers; {GET_IT_AGAIN}"
        )
    dtype = _TYPES[_number(magic, order)].newbyteorder(order)
    dimensions = _number(bytes(read_at_most(file, 4)), order)
    if dimensions != ndim:
        raise UserError(
            f"{path} has {dimensions} dimensions, but {ndim} were expected: check that the files "
            "have not been swapped."
        )
    count = max(ndim, _SIZES_AT_LEAST)
    sizes = read_at_most(file, 4 * count)
    if len(sizes) < 4 * count:
        raise UserError(f"{path} is truncated inside its header: {GET_IT_AGAIN}")
    shape = struct.unpack(f"{order}{count}i", sizes)[:ndim]
    if min(shape) < 1:
        raise UserError(f"{path} is empty, its header gives {list(shape)}: {GET_IT_AGAIN}")
    return dtype, shape


def _number(four_bytes: bytes, order: str) -> int:
    """A 32-bit integer; -1 where the file ends inside of it."""
    return struct.unpack(f"{order}i", four_bytes)[0] if len(four_bytes) == 4 else -1
