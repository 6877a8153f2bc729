"""Official files: found, verified, or told with what to do."""

import dataclasses
import hashlib

import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import official
from train.data.catalog import SOURCES
from train.data.official import OfficialFile
from train.system.errors import UserError

FILE = official(
    OfficialFile("set.tar.gz", "", "the images of a set", 0, "", unpacked="set"), b"content"
)


def test_the_packed_file_is_verified_and_preferred(tmp_path):
    (tmp_path / "set").mkdir()
    assert FILE.find(tmp_path) == tmp_path / "set"
    (tmp_path / "set.tar.gz").write_bytes(b"content")
    assert FILE.find(tmp_path) == tmp_path / "set.tar.gz"


@pytest.mark.parametrize("content", [b"contents", b"Content"])
def test_another_size_or_checksum(tmp_path, content):
    (tmp_path / "set.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"not the official file: it has {len(content)} bytes and"):
        FILE.find(tmp_path)


def test_a_missing_file_is_told_with_its_content_size_place_and_what_is_as_good(tmp_path):
    with pytest.raises(
        UserError,
        match=r"tar.gz does not exist: .*hold the images of a set there, a file of 7 bytes as "
        "published at http://host.invalid/set.tar.gz, or set, unpacked from it",
    ):
        FILE.find(tmp_path)


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "set.tar.gz").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        FILE.find(tmp_path)


def test_every_file_of_a_source_is_found_or_named(make_source):
    source, folder = make_source()
    assert source.find(folder) == [folder / file.name for file in source.files]
    for file in source.files:
        content = (folder / file.name).read_bytes()
        (folder / file.name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{folder / file.name} is not the official file"):
            source.find(folder)
        (folder / file.name).write_bytes(content)


def test_an_md5_serves_where_no_more_is_known_and_nothing_where_nothing_is(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"content")
    unknown = dataclasses.replace(FILE, size=None, checksum=None)
    known = dataclasses.replace(unknown, checksum=hashlib.md5(b"content").hexdigest())
    for file in (unknown, known):
        assert file.find(tmp_path) == tmp_path / "set.tar.gz"
    (tmp_path / "set.tar.gz").write_bytes(b"Content")
    with pytest.raises(UserError, match=f"checksum .*, expected one and {known.checksum}; get it"):
        known.find(tmp_path)
    assert unknown.find(tmp_path)
    (tmp_path / "set.tar.gz").unlink()
    with pytest.raises(UserError, match="hold the images of a set there, a file as published at"):
        unknown.find(tmp_path)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.files[0].size])
def test_the_table_equals_the_one_in_tensorflow_datasets(name):
    source = SOURCES[name]
    stock = tfds.builder_cls(source.tfds_name).url_infos
    for file in source.files:
        info = stock[file.url]
        assert (int(info.size), info.checksum) == (file.size, file.checksum)
        assert info.filename in (file.name, None)
    assert source.tfds_name == "svhn_cropped" or len(stock) == len(source.files)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "svhn_cropped", "smallnorb"])
def test_classes_equal_those_in_tensorflow_datasets(name, tmp_path):
    """Of CIFAR they are in the archives."""
    features = tfds.builder_cls(name)(data_dir=tmp_path).info.features
    feature = features["label_category" if name == "smallnorb" else "label"]
    assert tuple(feature.names) == SOURCES[name].class_names
