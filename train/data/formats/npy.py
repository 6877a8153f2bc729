"""NumPy's format of arrays, read without trusting a file that comes from elsewhere.

NumPy's own reader allocates what the header promises, and reads the header as a Python expression.
Here the header has to be what NumPy writes, to the letter, and `packed` says how one
that promises too much is met. Objects, which take pickle, are no elements.
"""

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most, read_rest
from train.system.errors import UserError

MOST_BYTES = 1 << 34
"""Elements of an array: 16 GiB, more than any data set that fits in memory beside a network."""

_MAGIC = b"\x93NUMPY"
_HEADER_SIZE_BYTES = {1: 2, 2: 4, 3: 4}
_LONGEST_HEADER = 1 << 12
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[biuf][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, )*\d{1,18},?|)\), \} *\n"
)


def read(path: str | Path) -> np.ndarray:
    """Reads a `.npy` file of numbers or truth values.

    Raises:
        UserError: if the file is missing, unreadable, damaged, in another format or of other
            elements, or longer or shorter than its header says.
    """
    path = Path(path)
    with opened(path) as file:
        return read_from(file, path)


def read_from(file: BinaryIO, source: object) -> np.ndarray:
    """Reads an array where an open file stands, up to its end.

    Args:
        file: the file.
        source: what to call it in a message.

    Raises:
        UserError: see `read`.
    """
    dtype, is_column_major, shape = _read_header(file, source)
    stored = shape[::-1] if is_column_major else shape
    array = read_rest(file, source, stored, dtype, most=MOST_BYTES)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native.transpose() if is_column_major else native


def _read_header(file: BinaryIO, source: object) -> tuple[np.dtype, bool, tuple[int, ...]]:
    begin = read_at_most(file, len(_MAGIC) + 2)
    count = _HEADER_SIZE_BYTES.get(begin[-2]) if begin[:-2] == _MAGIC else None
    if count is None:
        raise UserError(f"{source} is not an array of NumPy's format 1 to 3: {GET_IT_AGAIN}")
    size = int.from_bytes(read_at_most(file, count), "little")
    header = bytes(read_at_most(file, min(size, _LONGEST_HEADER)))
    found = _HEADER.fullmatch(header) if len(header) == size else None
    if found is None:
        raise UserError(
            f"{source} has a header that describes no array of numbers ({header[:60]!r}): save "
            "the array anew with numpy.save, as integers."
        )
    dtype, order, sizes = found.groups()
    shape = tuple(int(size) for size in sizes.replace(b",", b" ").split())
    return np.dtype(dtype.decode()), order == b"True", shape
