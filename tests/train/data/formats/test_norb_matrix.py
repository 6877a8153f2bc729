"""The strict reader of NORB matrices."""

import gzip
import struct

import numpy as np
import pytest

from tests.train.data.small_files import norb_bytes
from train.data.formats import norb_matrix
from train.system.errors import UserError

IMAGES = np.arange(2 * 2 * 4 * 6, dtype=np.uint8).reshape(2, 2, 4, 6)
LABELS = np.array([3, 1, 4, 1, 500_000], np.int32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "smallnorb-x-dat.mat"


def refused(path, match, dtype=np.uint8, ndim=4):
    with pytest.raises(UserError, match=match) as caught:
        norb_matrix.read(path, dtype=dtype, ndim=ndim)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".mat.gz"), (bytes, ".mat")])
@pytest.mark.parametrize("array", [IMAGES, LABELS, LABELS.reshape(1, 5)])
def test_reads_what_was_written(tmp_path, pack, suffix, array):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(pack(norb_bytes(array)))
    result = norb_matrix.read(path, dtype=array.dtype.type, ndim=array.ndim)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_the_bytes_of_the_published_layout(path):
    """A vector of integers: magic, 1 dimension, 3 sizes all the same, the elements."""
    path.write_bytes(
        bytes.fromhex("544c3d1e 01000000 02000000 01000000 01000000 07000000 ffffffff")
    )
    assert norb_matrix.read(path, dtype=np.int32, ndim=1).tolist() == [7, -1]


def test_every_truncation(path):
    content = norb_bytes(IMAGES)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "is damaged|not a NORB matrix|dimensions")


def test_what_is_no_such_matrix(path):
    path.write_bytes(b"MATLAB 5.0 MAT-file")
    refused(path, "not a NORB matrix of bytes or integers: it begins with 0x4d41544c")


def test_swapped_files(path):
    path.write_bytes(norb_bytes(LABELS))
    refused(path, "has 1 dimensions of int32, but 4 of uint8 were expected")
    refused(path, "has 1 dimensions of int32, but 1 of uint8 were expected", ndim=1)


def test_trailing_bytes(path):
    path.write_bytes(norb_bytes(IMAGES) + b"\0")
    refused(path, "is damaged: its header promises 96 bytes .* but 97 follow")


def test_missing(path):
    refused(path, "there is no file")


@pytest.mark.parametrize(
    "shape", [(2**20, 2, 1, 1), (2**31 - 1,) * 4, (-1, 2, 4, 6), (0, 2, 4, 6), (-1, -1, 1, 100)]
)
def test_a_header_that_promises_too_much_or_nothing(path, shape):
    path.write_bytes(struct.pack("<6i", 0x1E3D4C55, 4, *shape) + bytes(100))
    refused(path, "is damaged: its header promises")
