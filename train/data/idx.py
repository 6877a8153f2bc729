"""The IDX format of the MNIST files: a magic number, the dimensions, then the bytes.

    magic       2 zero bytes, the element type (0x08: unsigned byte), the number of dimensions
    dimensions  one big-endian unsigned 32-bit integer each
    elements    row-major, the last dimension fastest

A header is a claim. Nothing is allocated for what it promises: the elements are read in pieces
until the file ends or has given one byte more than it should. What promises more than `MOST_BYTES`
is not read at all: a gzipped file can be a thousand times larger than it looks.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from train.errors import UserError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20
MOST_BYTES = 1 << 32
"""Elements of a file: six times those of EMNIST, the largest set there is in this format."""
_GET_IT_AGAIN = "get the file again from the data set's publisher."


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
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, path, ndim)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _read(unzipped, path, ndim)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: name the folder that holds it.") from error
    except EOFError as error:
        raise UserError(f"{path} is truncated, its gzip stream stops: {_GET_IT_AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is corrupted ({error}): {_GET_IT_AGAIN}") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check what it is and its "
            "permissions."
        ) from error


def _read(file: BinaryIO, path: Path, ndim: int) -> np.ndarray:
    shape = _read_header(file, path, ndim)
    promised = math.prod(shape)
    if promised > MOST_BYTES:
        raise UserError(
            f"{path} promises {promised:,} bytes for the shape {list(shape)}, more than any data "
            f"set in this format holds ({MOST_BYTES:,}): {_GET_IT_AGAIN}"
        )
    elements = _read_at_most(file, promised + 1)
    if len(elements) < promised:
        raise UserError(
            f"{path} is truncated: its header promises {promised} bytes for the shape "
            f"{list(shape)}, but {len(elements)} follow; {_GET_IT_AGAIN}"
        )
    if len(elements) > promised:
        raise UserError(
            f"{path} goes on after the {promised} bytes that its header promises for the shape "
            f"{list(shape)}: {_GET_IT_AGAIN}"
        )
    return np.frombuffer(elements, dtype=np.uint8).reshape(shape)


def _read_header(file: BinaryIO, path: Path, ndim: int) -> tuple[int, ...]:
    magic = _read_at_most(file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise UserError(
            f"{path} is not an IDX file: it begins with 0x{magic.hex()}, where IDX begins with two "
            f"zero bytes, the element type and the number of dimensions; {_GET_IT_AGAIN}"
        )
    element_type, dimensions = magic[2], magic[3]
    if element_type != _UNSIGNED_BYTE:
        raise UserError(
            f"{path} holds elements of IDX type 0x{element_type:02x}, but only unsigned bytes "
            f"(0x{_UNSIGNED_BYTE:02x}) are images or labels: {_GET_IT_AGAIN}"
        )
    if dimensions != ndim:
        raise UserError(
            f"{path} has {dimensions} dimensions, but {ndim} were expected (3 for images, 1 for "
            "labels): check that the files have not been swapped."
        )
    sizes = _read_at_most(file, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise UserError(f"{path} is truncated inside its header: {_GET_IT_AGAIN}")
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise UserError(f"{path} is empty, its header gives {list(shape)}: {_GET_IT_AGAIN}")
    return shape


def _read_at_most(file: BinaryIO, size: int) -> bytearray:
    content = bytearray()
    while len(content) < size and (piece := file.read(min(_PIECE, size - len(content)))):
        content += piece
    return content
