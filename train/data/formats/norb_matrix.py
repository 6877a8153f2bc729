"""The binary matrix format of the NORB sets, which MATLAB does not read in spite of its `.mat`.

    magic       0x1E3D4C55 for unsigned bytes, 0x1E3D4C54 for signed 32-bit integers
    dimensions  their number, then the size of each, at least three of which stand there
    elements    row-major, the last dimension fastest

All integers are in the byte order of the machine that wrote them, which the magic shows; that is
little-endian in the published files.

Reference:
    Y. LeCun, F. J. Huang, L. Bottou, "Learning Methods for Generic Object Recognition with
    Invariance to Pose and Lighting", CVPR 2004; the format is described where the set is published.
"""

import gzip
import math
from pathlib import Path
from typing import Literal

import numpy as np

from train.system.errors import UserError

_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype(np.uint8), 0x1E3D4C54: np.dtype(np.int32)}
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_LEAST_SIZES = 3
MOST_BYTES = 1 << 29
"""That are read of a file: a little more than the images of smallNORB have."""


def read(path: Path, *, dtype: type[np.generic], ndim: int) -> np.ndarray:
    """Reads one file, gzipped where its name says so, which was verified then.

    Args:
        path: the file.
        dtype: what it must hold, uint8 or int32.
        ndim: number of dimensions it must have.

    Returns:
        The array, of the shape that the header gives.

    Raises:
        UserError: if the file is missing, unreadable, truncated, not in this format, of another
            element type or number of dimensions, or longer or shorter than its header says.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content: bytes = file.read(MOST_BYTES)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check what it is and its "
            "permissions."
        ) from error
    order = next((o for o in _ORDERS if int.from_bytes(content[:4], o) in _TYPES), None)
    if order is None:
        raise UserError(
            f"{path} is not a NORB matrix of bytes or integers: it begins with "
            f"0x{content[:4].hex()}, which is none of the known magic numbers; get the "
            "file again from the data set's publisher."
        )

    def number(index: int) -> int:
        return int.from_bytes(content[4 * index : 4 * index + 4], order, signed=True)

    stored, dimensions = _TYPES[number(0)], number(1)
    if (stored, dimensions) != (dtype, ndim):
        raise UserError(
            f"{path} has {dimensions} dimensions of {stored}, but {ndim} of {np.dtype(dtype)} were "
            "expected: check that the files have not been swapped."
        )
    shape = [number(2 + axis) for axis in range(ndim)]
    begin = 4 * (2 + max(ndim, _LEAST_SIZES))
    promised, there = math.prod(shape) * stored.itemsize, len(content) - begin
    if min(shape) < 1 or there != promised:
        raise UserError(
            f"{path} is damaged: its header promises {promised:,} bytes for the shape {shape}, but "
            f"{max(there, 0):,} follow; get the file again from the data set's publisher."
        )
    elements = np.frombuffer(content, stored.newbyteorder(order), offset=begin)
    return elements.reshape(shape).astype(dtype, copy=False)
