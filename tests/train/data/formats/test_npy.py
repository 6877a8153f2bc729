"""The strict reader of NumPy arrays, against files that NumPy writes."""

import io

import numpy as np
import pytest

from tests.train.data.small_files import npy_bytes, random
from train.data.formats import npy
from train.system.errors import UserError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "array.npy"


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        npy.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        random(3, 4, 5),
        random(3, 4, 5, 1).transpose(),
        np.arange(-3, 3),
        np.arange(6, dtype=">i4"),
        np.array(7, np.int8),
        np.zeros((0, 2), np.float32),
        np.array([True, False]),
    ],
)
def test_reads_what_numpy_writes(path, array):
    path.write_bytes(npy_bytes(array))
    result = npy.read(path)
    assert result.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_every_version_of_the_format(path, version):
    file = io.BytesIO()
    np.lib.format.write_array(file, random(3, 4), version=version)
    path.write_bytes(file.getvalue())
    np.testing.assert_array_equal(npy.read(path), random(3, 4))


def test_every_truncation(path):
    content = npy_bytes(random(2, 3))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "truncated|not an array of NumPy|describes no array")


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.array(["text"]), np.zeros(2, "i4,f4"), np.zeros(2, complex)]
)
def test_objects_text_and_records_are_no_numbers(path, array):
    path.write_bytes(npy_bytes(array))
    refused(path, "header that describes no array of numbers .*save the array anew")


def test_trailing_bytes(path):
    path.write_bytes(npy_bytes(random(2, 3)) + b"\0")
    refused(path, "goes on after the 6 bytes")


@pytest.mark.parametrize(
    ("shape", "message"),
    [(b"(2000000, 3)", "truncated"), (b"(99999999999, 99999999999)", "more than any data set")],
)
def test_a_header_that_promises_too_much(path, shape, message):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': %s, }\n" % shape
    path.write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(9))
    refused(path, message)
