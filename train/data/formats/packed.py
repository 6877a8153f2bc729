"""Files from elsewhere, gzipped or not, whose header says what follows.

Nothing is allocated for what a header promises: the bytes are read in pieces until the file ends or
has given one byte more than it should. What promises more than a format's largest set holds is not
read at all: a gzipped file can be a thousand times larger than it looks.
"""

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from train.system.errors import UserError

GET_IT_AGAIN = "get the file again from the data set's publisher."

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, unpacking it where it is gzipped.

    Raises:
        UserError: if it is missing, unreadable or a damaged gzip stream, which the reading shows.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield cast(BinaryIO, unzipped)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: name the folder that holds it.") from error
    except EOFError as error:
        raise UserError(f"{path} is truncated, its gzip stream stops: {GET_IT_AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is corrupted ({error}): {GET_IT_AGAIN}") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check what it is and its "
            "permissions."
        ) from error


def read_at_most(file: BinaryIO, size: int) -> bytearray:
    """Reads the next bytes of a file: as many as are asked for, or all that are left."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(_PIECE, size - len(content)))):
        content += piece
    return content


def read_shape(
    file: BinaryIO, path: Path, dimensions: int, ndim: int, size: np.dtype, *, least: int = 0
) -> tuple[int, ...]:
    """Reads the sizes of an array.

    Args:
        file: stands where they begin.
        path: of the file, for the messages.
        dimensions: their number by the header.
        ndim: the number expected.
        size: the dtype of each.
        least: how many stand there at least, even where the array has fewer dimensions.

    Raises:
        UserError: if there are not as many as expected, the file stops, or a size is less than 1.
    """
    if dimensions != ndim:
        raise UserError(
            f"{path} has {dimensions} dimensions, but {ndim} were expected: check that the files "
            "have not been swapped."
        )
    count = max(ndim, least)
    sizes = read_at_most(file, count * size.itemsize)
    if len(sizes) < count * size.itemsize:
        raise UserError(f"{path} is truncated inside its header: {GET_IT_AGAIN}")
    shape = tuple(np.frombuffer(sizes, size)[:ndim].tolist())
    if min(shape) < 1:
        raise UserError(f"{path} is empty, its header gives {list(shape)}: {GET_IT_AGAIN}")
    return shape


def read_rest(
    file: BinaryIO, path: Path, shape: Sequence[int], dtype: np.dtype, *, most: int
) -> np.ndarray:
    """Reads the elements of an array, after which the file must end.

    Args:
        file: stands where they begin.
        path: of the file, for the messages.
        shape: by the header.
        dtype: of the elements, row-major in the file.
        most: bytes that no file of the format has more of.

    Raises:
        UserError: if the header promises more than `most`, or more or less than there is.
    """
    promised = math.prod(shape) * dtype.itemsize
    if promised > most:
        raise UserError(
            f"{path} promises {promised:,} bytes for the shape {list(shape)}, more than any data "
            f"set in this format holds ({most:,}): {GET_IT_AGAIN}"
        )
    elements = read_at_most(file, promised + 1)
    if len(elements) < promised:
        raise UserError(
            f"{path} is truncated: its header promises {promised} bytes for the shape "
            f"{list(shape)}, but {len(elements)} follow; {GET_IT_AGAIN}"
        )
    if len(elements) > promised:
        raise UserError(
            f"{path} goes on after the {promised} bytes that its header promises for the shape "
            f"{list(shape)}: {GET_IT_AGAIN}"
        )
    return np.frombuffer(elements, dtype=dtype).reshape(shape)
