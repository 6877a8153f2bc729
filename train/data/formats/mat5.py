"""Arrays of numbers in MATLAB's own file format, version 5: as much of it as SVHN needs.

    file      128 bytes, the last four of them the version and "IM" or "MI" for the byte order;
              then elements
    element   a tag, its type and the number of its bytes, four each, or two each where at most four
              bytes follow; then the bytes, filled up to a multiple of eight
    matrix    an element of elements: flags and class, dimensions, name, values

An element of type 15 is another one, compressed. Values are column-major and may be stored in a
smaller type than their class. Nothing is allocated for what a tag or a dimension promises, and what
unpacks to more than `MOST_BYTES` is refused.

Reference:
    MathWorks, "MAT-File Level 5 File Format".
"""

import math
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from train.data.formats.packed import GET_IT_AGAIN, opened, read_at_most
from train.system.errors import UserError

MOST_BYTES = 1 << 29
"""Of a file, and of an element that is unpacked: twice the training images of SVHN."""

_HEADER_BYTES = 128
_COMPRESSED, _MATRIX = 15, 14
_COMPLEX = 0x0800
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}


class _NotSoundError(Exception):
    """What is wrong with a file."""


def read(path: str | Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads arrays of a file.

    Args:
        path: the file.
        names: of the arrays; others are skipped.

    Returns:
        The arrays by name, each of the dtype of its MATLAB class.

    Raises:
        UserError: if the file is missing, unreadable, damaged or not in this format, or lacks one
            of the arrays.
    """
    path = Path(path)
    with opened(path) as file:
        content = memoryview(read_at_most(file, MOST_BYTES + 1))
    try:
        arrays = dict(_arrays(content, names))
        if missing := set(names) - arrays.keys():
            raise _NotSoundError(f"lacks the array {min(missing)!r}")
    except _NotSoundError as error:
        raise UserError(f"{path} {error}: {GET_IT_AGAIN}") from error
    return arrays


def _arrays(content: memoryview, names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    if len(content) > MOST_BYTES:
        raise _NotSoundError(f"has more than {MOST_BYTES:,} bytes, more than any data set here")
    orders = {b"IM": "<", b"MI": ">"}
    order = orders.get(bytes(content[_HEADER_BYTES - 2 : _HEADER_BYTES]))
    if order is None:
        raise _NotSoundError("is not a MATLAB file of version 5")
    for kind, element in _elements(content[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            kind, element = next(_elements(_inflated(element), order), (0, element))
        if kind == _MATRIX:
            yield from _matrix(element, order, names)


def _inflated(element: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(element, MOST_BYTES + 1)
    except zlib.error as error:
        raise _NotSoundError(f"is corrupted ({error})") from error
    if len(content) > MOST_BYTES:
        raise _NotSoundError(f"unpacks to more than {MOST_BYTES:,} bytes")
    if not stream.eof:
        raise _NotSoundError("is truncated, a compressed array stops")
    return memoryview(content)


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The type and the bytes of one element after the other."""
    at = 0
    while at < len(content):
        if len(content) - at < 8:
            raise _NotSoundError("is truncated inside a tag")
        first, size = (int(x) for x in np.frombuffer(content[at : at + 8], f"{order}u4"))
        if first >> 16:
            kind, size, begin, end = first & 0xFFFF, first >> 16, at + 4, at + 8
            if size > 4:
                raise _NotSoundError(f"promises {size} bytes where there is room for four")
        else:
            kind, begin = first, at + 8
            end = begin + size + (0 if kind == _COMPRESSED else -size % 8)
        if begin + size > len(content):
            raise _NotSoundError(
                f"is truncated: a tag promises {size:,} bytes, but {len(content) - begin:,} follow"
            )
        yield kind, content[begin : begin + size]
        at = end


def _matrix(
    element: memoryview, order: str, names: Collection[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """The name of a matrix and its values, if it is one of those wanted."""
    parts = _elements(element, order)
    flags = _numbers(parts, order, "the flags of an array", ("u4",))
    dimensions = _numbers(parts, order, "the dimensions of an array", ("i4",))
    name = _numbers(parts, order, "the name of an array", ("i1",)).tobytes().decode("latin-1")
    if name not in names:
        return
    dtype = np.dtype(_CLASSES.get(int(flags[0]) & 0xFF, "V") if len(flags) else "V")
    if dtype.kind == "V" or int(flags[0]) & _COMPLEX:
        raise _NotSoundError(f"holds {name!r}, which is no array of real numbers")
    values = _numbers(parts, order, f"the values of {name!r}", _TYPES.values())
    if not np.can_cast(values.dtype, dtype):
        raise _NotSoundError(f"holds {name!r} as {dtype}, but with values of {values.dtype}")
    shape = tuple(int(size) for size in dimensions)
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise _NotSoundError(f"promises {list(shape)} for {name!r}, but has {len(values)} values")
    yield name, values.astype(dtype, copy=False).reshape(shape, order="F")


def _numbers(
    parts: Iterator[tuple[int, memoryview]], order: str, what: str, types: Collection[str]
) -> np.ndarray:
    """The next element, which has to be one of numbers of these types."""
    kind, content = next(parts, (0, memoryview(b"")))
    if _TYPES.get(kind) not in types:
        raise _NotSoundError(f"is damaged where {what} should be")
    dtype = np.dtype(f"{order}{_TYPES[kind]}")
    if len(content) % dtype.itemsize:
        raise _NotSoundError(f"is damaged in {what}: {len(content)} bytes of {dtype}")
    return np.frombuffer(content, dtype)
