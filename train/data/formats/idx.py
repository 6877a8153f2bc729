"""The IDX format of the MNIST files: a magic number, the dimensions, then the bytes.

    magic       2 zero bytes, the element type (0x08: unsigned byte), the number of dimensions
    dimensions  one big-endian unsigned 32-bit integer each
    elements    row-major, the last dimension fastest

`train.data.formats.packed` says how a header that promises too much is met.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most, read_rest
from train.system.errors import UserError

_UNSIGNED_BYTE = 0x08
MOST_BYTES = 1 << 32
"""Elements of a file: six times those of EMNIST, the largest set there is in this format."""


def read(path: str | Path, *, ndim: int) -> np.ndarray:
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
    path = Path(path)
    with opened(path) as file:
        shape = _read_header(file, path, ndim)
        return read_rest(file, path, shape, most=MOST_BYTES)


def _read_header(file: BinaryIO, path: Path, ndim: int) -> tuple[int, ...]:
    magic = read_at_most(file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise UserError(
            f"{path} is not an IDX file: it begins with 0x{magic.hex()}, where IDX begins with two "
            f"zero bytes, the element type and the number of dimensions; {GET_IT_AGAIN}"
        )
    element_type, dimensions = magic[2], magic[3]
    if element_type != _UNSIGNED_BYTE:
        raise UserError(
            f"{path} holds elements of IDX type 0x{element_type:02x}, but only unsigned bytes "
            f"(0x{_UNSIGNED_BYTE:02x}) are images or labels: {GET_IT_AGAIN}"
        )
    if dimensions != ndim:
        raise UserError(
            f"{path} has {dimensions} dimensions, but {ndim} were expected (3 for images, 1 for "
            "labels): check that the files have not been swapped."
        )
    sizes = read_at_most(file, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise UserError(f"{path} is truncated inside its header: {GET_IT_AGAIN}")
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise UserError(f"{path} is empty, its header gives {list(shape)}: {GET_IT_AGAIN}")
    return shape
