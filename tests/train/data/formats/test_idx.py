"""The strict IDX reader: sound files come back, every other file is one clear sentence."""

import gzip
import struct
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.train.data.small_files import idx_bytes
from train.data.formats import idx
from train.system.errors import UserError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some-images-idx3-ubyte.gz"


def refused(path, match, ndim=3):
    with pytest.raises(UserError, match=match) as caught:
        idx.read(path, ndim=ndim)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
@pytest.mark.parametrize("array", [IMAGES, IMAGES[0, 0]])
def test_reads_what_was_written(path, pack, array):
    path.write_bytes(pack(idx_bytes(array)))
    result = idx.read(path, ndim=array.ndim)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


def test_missing(path):
    refused(path, "does not exist")


def test_a_folder_is_not_a_file(path):
    path.mkdir()
    refused(path, "cannot be read")


def test_every_truncation_of_the_gzip_stream(path):
    content = gzip.compress(idx_bytes(IMAGES))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "truncated|not an IDX file")


def test_every_truncation_of_the_content(path):
    content = idx_bytes(IMAGES)
    for length in range(len(content)):
        path.write_bytes(gzip.compress(content[:length]))
        refused(path, "truncated|not an IDX file")


def test_corrupted_gzip(path):
    content = bytearray(gzip.compress(idx_bytes(IMAGES)))
    content[-6] ^= 1  # in the checksum of the stream
    path.write_bytes(content)
    refused(path, "corrupted")


def test_bad_magic(path):
    path.write_bytes(gzip.compress(b"\x89PNG" + bytes(100)))
    refused(path, "not an IDX file: it begins with 0x89504e47")


def test_other_element_type(path):
    path.write_bytes(gzip.compress(struct.pack(">BBBBI", 0, 0, 0x0D, 1, 1) + bytes(4)))
    refused(path, "type 0x0d", ndim=1)


def test_labels_where_images_belong(path):
    path.write_bytes(gzip.compress(idx_bytes(IMAGES[0, 0])))
    refused(path, "has 1 dimensions, but 3 were expected")


def test_trailing_bytes(path):
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + b"\0"))
    refused(path, "goes on after the 60 bytes")


def test_no_elements(path):
    path.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 0, 28, 28)))
    refused(path, "is empty")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**22, 28, 28), "truncated: its header promises"),
        ((2**31, 28, 28), "more than any data set"),
        ((2**32 - 1,) * 3, "more than any data set"),
    ],
)
def test_a_header_that_promises_too_much_costs_no_memory(path, shape, message):
    path.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, *shape) + bytes(100)))
    tracemalloc.start()
    try:
        refused(path, message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


@settings(max_examples=200, deadline=None)
@given(
    zipped=st.booleans(),
    flips=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    length=st.integers(0, 10_000),
)
def test_damage_is_refused_or_harmless(tmp_path_factory, zipped, flips, length):
    """Damage raises `UserError` and nothing else, or leaves an array of the size of the file."""
    content = bytearray(gzip.compress(idx_bytes(IMAGES)) if zipped else idx_bytes(IMAGES))
    for flip in flips:
        bit = flip % (8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("fuzz") / "damaged.gz"
    path.write_bytes(content[: max(1, length % (2 * len(content)))])
    try:
        result = idx.read(path, ndim=3)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert result.size == IMAGES.size


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_or_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "any"
    path.write_bytes(content)
    try:
        result = idx.read(path, ndim=1)
    except UserError:
        return
    assert result.size == len(content) - 8
