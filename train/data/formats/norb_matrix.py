"""The binary matrix format of the NORB sets, which MATLAB does not read in spite of its `.mat`.

    magic       0x1E3D4C55 for unsigned bytes, 0x1E3D4C54 for signed 32-bit integers
    dimensions  their number, then the size of each, at least three of which stand there
    elements    row-major, the last dimension fastest

All integers are little-endian in the published files.

Reference:
    Y. LeCun, F. J. Huang, L. Bottou, "Learning Methods for Generic Object Recognition with
    Invariance to Pose and Lighting", CVPR 2004; the format is described where the set is published.
"""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from train.system.errors import UserError
from train.system.files import reading

_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype(np.uint8), 0x1E3D4C54: np.dtype("<i4")}
_LEAST_SIZES = 3
MOST_BYTES = 1 << 29
"""That are read of a file: a little more than the images of smallNORB have."""


def read(path: Path, *, dtype: type[np.generic], ndim: int) -> np.ndarray:
    """Reads the array of one file, gzipped where its name says so, which was verified then.

    It must hold uint8 or int32, as `dtype` says, in so many dimensions, up to 4.

    Raises:
        UserError: if the file is missing, unreadable, truncated, not in this format, of another
            element type or number of dimensions, or longer or shorter than its header says.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    advice = "check what it is and its permissions"
    with reading(path, "a NORB matrix", advice), opened(path, "rb") as file:
        content: bytes = file.read(MOST_BYTES)
    # The header of a file with as many dimensions as any has, or of a shorter one and what follows.
    magic, dimensions, *sizes = struct.unpack("<6i", content[:24].ljust(24, b"\0"))
    if magic not in _TYPES:
        raise UserError(
            f"{path} is not a NORB matrix of bytes or integers: it begins with "
            f"0x{content[:4].hex()}, which is none of the known magic numbers; get the file again "
            "from the data set's publisher."
        )
    stored = _TYPES[magic]
    if (stored, dimensions) != (dtype, ndim):
        raise UserError(
            f"{path} has {dimensions} dimensions of {stored}, but {ndim} of {np.dtype(dtype)} were "
            "expected: check that the files have not been swapped."
        )
    shape = sizes[:ndim]
    begin = 4 * (2 + max(ndim, _LEAST_SIZES))
    promised, there = math.prod(shape) * stored.itemsize, len(content) - begin
    if min(shape) < 1 or there != promised:
        raise UserError(
            f"{path} is damaged: its header promises {promised:,} bytes for the shape {shape}, but "
            f"{max(there, 0):,} follow; get the file again from the data set's publisher."
        )
    return np.frombuffer(content, stored, offset=begin).reshape(shape)
