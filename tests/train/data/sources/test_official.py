"""Official files: found, verified, or told with what to do."""

import pytest

from tests.train.data.small_files import fingerprint
from train.data.sources import official
from train.data.sources.official import OfficialFile
from train.system.errors import UserError

FILE = OfficialFile(
    name="set.tar.gz",
    url="http://host.invalid/set.tar.gz",
    content="the images of a set",
    fingerprint=fingerprint(b"content"),
    unpacked="set",
)


def test_the_packed_file_is_verified_and_preferred(tmp_path):
    (tmp_path / "set").mkdir()
    assert FILE.find(tmp_path) == tmp_path / "set"
    (tmp_path / "set.tar.gz").write_bytes(b"content")
    assert FILE.find(tmp_path) == tmp_path / "set.tar.gz"
    (tmp_path / "set.tar.gz").write_bytes(b"contents")
    with pytest.raises(UserError, match="is not the official file: it has 8 bytes and SHA-256"):
        FILE.find(tmp_path)


def test_a_missing_file_is_told_with_its_content_size_place_and_what_is_as_good(tmp_path):
    with pytest.raises(UserError, match=r"the images of a set there \(7 bytes\), .*, or set, unp"):
        FILE.find(tmp_path)


@pytest.mark.parametrize("variable", [True, False])
def test_the_default_cache(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "named"))
    else:
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    expected = tmp_path / ("named" if variable else "tensorflow_datasets")
    assert official.cache_folder() == expected
    assert official.cache_folder("~/x") == tmp_path / "x"
