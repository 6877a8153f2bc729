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

from pathlib import Path
from typing import Literal

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most, read_rest, read_shape
from train.system.errors import UserError

_TYPES: dict[int, np.dtype] = {0x1E3D4C55: np.dtype(np.uint8), 0x1E3D4C54: np.dtype(np.int32)}
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_LEAST_SIZES = 3
MOST_BYTES = 1 << 29
"""Elements of a file: a little more than the images of smallNORB have."""


def read(path: Path, *, dtype: type[np.generic], ndim: int) -> np.ndarray:
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
    with opened(path) as file:
        magic = read_at_most(file, 4)
        order = next((o for o in _ORDERS if int.from_bytes(magic, o) in _TYPES), None)
        if order is None:
            raise UserError(
                f"{path} is not a NORB matrix of bytes or integers: it begins with "
                f"0x{magic.hex()}, which is none of the known magic numbers; {GET_IT_AGAIN}"
            )
        stored = _TYPES[int.from_bytes(magic, order)]
        dimensions = int.from_bytes(read_at_most(file, 4), order)
        size = np.dtype(np.int32).newbyteorder(order)
        shape = read_shape(file, path, dimensions, ndim, size, least=_LEAST_SIZES)
        if stored != dtype:
            raise UserError(
                f"{path} holds {stored}, but {np.dtype(dtype)} was expected: check that the files "
                "have not been swapped."
            )
        array = read_rest(file, path, shape, stored.newbyteorder(order), most=MOST_BYTES)
    return array.astype(dtype, copy=False)
