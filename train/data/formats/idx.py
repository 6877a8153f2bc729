"""The IDX format of the MNIST files: a magic number, the dimensions, then the bytes.

magic       2 zero bytes, the element type (0x08: unsigned byte), the number of dimensions
dimensions  one big-endian unsigned 32-bit integer each
elements    row-major, the last dimension fastest
"""

from pathlib import Path

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most, read_rest, read_shape
from train.system.errors import UserError

_UNSIGNED_BYTE = 0x08
MOST_BYTES = 1 << 32
"""Elements of a file: six times those of EMNIST, the largest set there is in this format."""


def read(path: Path, *, ndim: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped or not.

    Args:
        path: the file.
        ndim: number of dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8, the shape that the header gives.

    Raises:
        UserError: if the file is missing, unreadable, corrupted, truncated, not IDX, of another
            element type or number of dimensions, or longer or shorter than its header says.
    """
    with opened(path) as file:
        magic = read_at_most(file, 4)
        if len(magic) < 4 or magic[:2] != b"\0\0":
            raise UserError(
                f"{path} is not an IDX file: it begins with 0x{magic.hex()}, where IDX begins with "
                f"two zero bytes, the element type and the number of dimensions; {GET_IT_AGAIN}"
            )
        _, _, element_type, dimensions = magic
        if element_type != _UNSIGNED_BYTE:
            raise UserError(
                f"{path} holds elements of IDX type 0x{element_type:02x}, but only unsigned bytes "
                f"(0x{_UNSIGNED_BYTE:02x}) are images or labels: {GET_IT_AGAIN}"
            )
        shape = read_shape(file, path, dimensions, ndim, np.dtype(">u4"))
        return read_rest(file, path, shape, np.dtype(np.uint8), most=MOST_BYTES)
