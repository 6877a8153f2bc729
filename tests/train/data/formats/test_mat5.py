"""The reader of MATLAB 5 files, against files that SciPy writes."""

import struct
import zlib

import numpy as np
import pytest

from tests.train.data.small_files import mat5_bytes, random
from train.data.formats import mat5
from train.system.errors import UserError

X = np.moveaxis(random(3, 4, 5, 3), 0, -1)
COMPRESSED = pytest.mark.parametrize("compressed", [True, False])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train_32x32.mat"


def refused(path, match, names=("X",)):
    with pytest.raises(UserError, match=match) as caught:
        mat5.read(path, names)
    assert str(path) in str(caught.value)


@COMPRESSED
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8"])
def test_reads_what_scipy_writes(path, compressed, dtype):
    y = np.arange(1, 12).reshape(-1, 1).astype(dtype)
    path.write_bytes(mat5_bytes({"X": X, "other": X, "y": y}, compressed=compressed))
    arrays = mat5.read(path, ("X", "y"))
    assert set(arrays) == {"X", "y"}
    assert (arrays["X"].dtype, arrays["y"].dtype) == (X.dtype, y.dtype)
    np.testing.assert_array_equal(arrays["X"], X)
    np.testing.assert_array_equal(arrays["y"], y)


def matrix(content: bytes, *, order: str = "<", kind: int = 2, array_class: int = 6) -> bytes:
    """A file with a column `y`, whose values of type `kind` are `content`."""
    parts = [
        struct.pack(f"{order}4I", 6, 8, array_class, 0),
        struct.pack(f"{order}2I2i", 5, 8, len(content), 1),
        struct.pack(f"{order}I", 1 << 16 | 1) + b"y\0\0\0",
        struct.pack(f"{order}2I", kind, len(content)) + content + bytes(-len(content) % 8),
    ]
    body = b"".join(parts)
    indicator = {"<": b"IM", ">": b"MI"}[order]
    header = bytes(124) + struct.pack(f"{order}H", 0x0100) + indicator
    return header + struct.pack(f"{order}2I", 14, len(body)) + body


@pytest.mark.parametrize("order", "<>")
def test_doubles_that_are_stored_as_bytes(path, order):
    """As MATLAB itself stores whole numbers, in either byte order."""
    path.write_bytes(matrix(bytes([1, 2, 10]), order=order))
    y = mat5.read(path, ("y",))["y"]
    assert y.dtype == np.float64
    assert y.tolist() == [[1], [2], [10]]


@COMPRESSED
def test_every_truncation(path, compressed):
    content = mat5_bytes({"X": X[..., :1]}, compressed=compressed)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "truncated|not a MATLAB file|lacks the array|damaged")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a MATLAB file of version 5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "is not a MATLAB file of version 5"),
        (mat5_bytes({"y": X}), "lacks the array 'X'"),
        (mat5_bytes({"X": X * 1j}), "no array of real numbers"),
        (mat5_bytes({"X": np.array(["text"])}), "no array of real numbers"),
        (bytes(126) + b"IM" + struct.pack("<2I", 15, 4) + b"none", "is corrupted"),
        (bytes(126) + b"IM" + struct.pack("<2I", 14, 2**31), "promises 2,147,483,648 bytes"),
        (bytes(126) + b"IM" + struct.pack("<2I", 14, 0), "damaged where the flags"),
    ],
)
def test_what_is_no_such_file(path, content, message):
    path.write_bytes(content)
    refused(path, message)


def test_values_that_do_not_fit_their_class(path):
    path.write_bytes(matrix(bytes(8), kind=9, array_class=9))
    refused(path, "'y' as uint8, but with values of float64", names=("y",))


def test_a_compressed_array_that_would_fill_the_memory(path, monkeypatch):
    monkeypatch.setattr(mat5, "MOST_BYTES", 10_000)
    bomb = zlib.compress(bytes(10_001))
    path.write_bytes(bytes(126) + b"IM" + struct.pack("<2I", 15, len(bomb)) + bomb)
    refused(path, "unpacks to more than 10,000 bytes")
    path.write_bytes(bytes(10_001))
    refused(path, "has more than 10,000 bytes")
