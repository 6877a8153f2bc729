"""Members of zip archives."""

import pytest

from tests.train.data.small_files import zip_bytes
from train.data.formats import zipped
from train.system.errors import UserError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(zip_bytes({"a/b": b"content" * 100, "c": b""}))
    return path


def read(path, name="a/b"):
    with zipped.member(path, name) as file:
        return file.read()


def test_reads_a_member(path):
    assert read(path) == b"content" * 100
    assert read(path, "c") == b""


def test_a_member_that_is_missing(path):
    with pytest.raises(UserError, match="x.zip lacks the file b"):
        read(path, "b")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no file .*none.zip"):
        read(tmp_path / "none.zip")


def test_every_truncation(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="no sound zip archive"):
            read(path)


def test_a_wrong_checksum(path):
    content = bytearray(path.read_bytes())
    content[35] ^= 1  # in the compressed bytes of the first member
    path.write_bytes(content)
    with pytest.raises(UserError, match="no sound zip archive"):
        read(path)


def test_a_folder_is_no_archive(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)
