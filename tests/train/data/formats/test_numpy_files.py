"""NumPy's files: all that NumPy writes and reads, without pickle, as far as memory goes."""

import io

import numpy as np
import pytest

from tests.train.data.small_files import npy_bytes, npy_with_header, random, zip_bytes
from train.data.formats import numpy_files
from train.system.errors import UserError


@pytest.fixture(params=["npy", "npz"])
def read(request, tmp_path):
    """Reads bytes as an array, from a file of its own or from an archive."""
    path = tmp_path / f"array.{request.param}"

    def read(content: bytes) -> np.ndarray:
        if request.param == "npy":
            path.write_bytes(content)
            return numpy_files.read(path)
        path.write_bytes(zip_bytes({"a.npy": content}))
        (array,) = numpy_files.read_members(path, ["a.npy"])
        return array

    return read


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
def test_reads_what_numpy_writes(read, array):
    np.testing.assert_array_equal(read(npy_bytes(array)), array, strict=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_every_version_of_the_format(read, version):
    file = io.BytesIO()
    np.lib.format.write_array(file, random(3, 4), version=version)
    np.testing.assert_array_equal(read(file.getvalue()), random(3, 4))


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4), }\n",
        b"{'descr':'|u1','fortran_order':False,'shape':(3,4)}\n",  # as other programs write it
        b'{"shape": (3, 4), "fortran_order": False, "descr": "u1"}      \n',
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (3L, 4L), }\n",  # of Python 2
    ],
)
def test_headers_that_numpy_accepts_are_accepted(read, header):
    content = npy_with_header(header, random(3, 4).tobytes())
    np.testing.assert_array_equal(read(content), random(3, 4))


def test_every_truncation(read):
    content = npy_bytes(random(2, 3))
    for length in range(len(content)):
        with pytest.raises(UserError, match="array.np. cannot be read as NumPy's arrays"):
            read(content[:length])


def test_nothing_is_unpickled(read):
    with pytest.raises(UserError, match="holds objects, not numbers"):
        read(npy_bytes(np.array([print])))


def test_trailing_bytes(read):
    with pytest.raises(UserError, match="goes on after its array of 6 bytes"):
        read(npy_bytes(random(2, 3)) + b"\0")


@pytest.mark.parametrize("shape", [b"(-1, 3)", b"(2000000, 3)"])
def test_a_header_that_promises_another_array(read, shape):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': %s, }\n" % shape
    with pytest.raises(UserError, match="cannot be read as NumPy's arrays"):
        read(npy_with_header(header, bytes(9)))


def test_what_does_not_fit_in_memory_is_refused_unread(read, monkeypatch):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9999999999), }\n"
    with pytest.raises(UserError, match=r"promises 7,999,.* bytes for the shape .* more than the"):
        read(npy_with_header(header, bytes(9)))
    monkeypatch.setattr(numpy_files, "physical_bytes", lambda: 12)
    assert read(npy_bytes(random(3, 4))).shape == (3, 4)
    with pytest.raises(UserError, match="promises 13 bytes"):
        read(npy_bytes(random(13)))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(zip_bytes({"a/b.npy": npy_bytes(random(8)), "c.npy": npy_bytes(random(9))}))
    return path


def test_all_arrays_together_have_to_fit_in_memory(archive, monkeypatch):
    assert numpy_files.members(archive) == ["a/b.npy", "c.npy"]
    monkeypatch.setattr(numpy_files, "physical_bytes", lambda: 16)
    with pytest.raises(UserError, match="x.zip, c.npy, promises 9 bytes"):
        numpy_files.read_members(archive, ["a/b.npy", "c.npy"])


def test_a_member_that_is_missing(archive):
    with pytest.raises(UserError, match="x.zip lacks the file b.npy"):
        numpy_files.read_members(archive, ["c.npy", "b.npy"])


@pytest.mark.parametrize("read", [numpy_files.read, numpy_files.members])
def test_a_missing_file_and_a_folder(read, tmp_path):
    with pytest.raises(UserError, match="there is no file .*none.zip"):
        read(tmp_path / "none.zip")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


def test_a_damaged_archive(archive):
    """Cut short anywhere, or with another bit in what is packed."""
    content = archive.read_bytes()
    flipped = bytearray(content)
    flipped[60] ^= 1
    for damaged in (*(content[:length] for length in range(len(content))), flipped):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="x.zip cannot be read as NumPy's arrays"):
            numpy_files.read_members(archive, ["a/b.npy"])
