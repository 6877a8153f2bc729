"""tensorflow-datasets' cache: what we write is what stock reads, and failures leave nothing."""

import errno
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from tests.train.data.small_files import small_mnist, small_qmnist, small_svhn
from train.data import Dataset, tfds_cache
from train.data.official import Source
from train.data.sources.mnist import MNIST
from train.system.errors import UserError

VERSION = str(tfds.builder_cls("mnist").VERSION)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(folder: Path) -> list[Path]:
    return list(folder.rglob("*")) if folder.exists() else []


def require_equal(ours: Dataset, theirs: Dataset) -> None:
    for one, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        np.testing.assert_array_equal(one.images, other.images, strict=True)
        np.testing.assert_array_equal(one.labels, other.labels, strict=True)
    assert ours.class_names == theirs.class_names


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Source, Dataset, Path]:
    """A small source, read from its official files, and a cache that it was prepared in."""
    folder = tmp_path_factory.mktemp("prepared")
    source = small_mnist(folder / "files", train_size=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder / "cache"))
        tfds_cache.load(source, folder / "files")
    return source, source.load(source.find(folder / "files")), folder / "cache"


def test_stock_tensorflow_datasets_reads_what_was_prepared(prepared):
    _, official, cache = prepared
    stock = tfds.builder("mnist", data_dir=cache)
    assert type(stock).__module__.startswith("tensorflow_datasets.")
    assert stock.is_prepared()
    assert stock.info.splits["train"].num_examples == len(official.train)
    for name, split in (("train", official.train), ("test", official.test)):
        examples = stock.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()})
        positions = tfds_cache._official_positions(name, len(split))
        assert [example["label"] for example in examples] == split.labels[positions].tolist()
    restored = tfds.builder_from_directory(stock.data_dir)
    assert restored.info.features["image"].shape == (28, 28, 1)
    assert "tensorflow" not in sys.modules


def test_the_folder_is_laid_out_as_by_stock_tensorflow_datasets(prepared):
    _, _, cache = prepared
    assert {str(path.relative_to(cache)) for path in contents(cache) if path.is_file()} == {
        f"mnist/{VERSION}/dataset_info.json",
        f"mnist/{VERSION}/features.json",
        f"mnist/{VERSION}/mnist-train.array_record-00000-of-00001",
        f"mnist/{VERSION}/mnist-test.array_record-00000-of-00001",
        f"mnist/.{VERSION}-arrays.npz",  # beside it, what its images are once they are decoded
    }
    info = json.loads((cache / "mnist" / VERSION / "dataset_info.json").read_text())
    stock = tfds.builder_cls("mnist")
    assert (info["name"], info["version"]) == ("mnist", VERSION)
    assert info["moduleName"] == stock.__module__


def test_reads_back_the_official_order_without_files_or_publisher(prepared, monkeypatch):
    source, official, cache = prepared
    monkeypatch.setenv("TFDS_DATA_DIR", str(cache))
    assert tfds_cache.has(source)
    require_equal(tfds_cache.load(source), official)


def test_images_are_decoded_once_for_each_version_of_the_files(prepared, cache, monkeypatch):
    source, official, whole = prepared
    shutil.copytree(whole, cache, ignore=shutil.ignore_patterns("*.npz"))
    read, decoded = tfds_cache._read_split, []

    def counted(builder, name):
        decoded.append(name)
        return read(builder, name)

    monkeypatch.setattr(tfds_cache, "_read_split", counted)
    for _ in range(2):
        require_equal(tfds_cache.load(source), official)
        assert decoded == ["train", "test"]
    (kept,) = cache.rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-1000])
    require_equal(tfds_cache.load(source), official)
    assert decoded == ["train", "test"] * 2
    (file,) = cache.rglob("*test.array_record*")
    os.utime(file, ns=(0, 0))
    require_equal(tfds_cache.load(source), official)
    assert decoded == ["train", "test"] * 3
    tfds_cache.load(source)
    assert decoded == ["train", "test"] * 3


def test_a_faster_process_wins(make_source, cache, capsys):
    source, folder = make_source()
    tfds_cache.load(source, folder)
    printed = capsys.readouterr()
    assert printed.out == ""  # where programs read
    assert printed.err == f"Preparing mnist in {cache}, once.\n"
    before = sorted((path, path.stat().st_mtime_ns) for path in contents(cache) if path.is_file())
    with tfds_cache._staging_folder(source, cache) as staging:
        tfds_cache._prepare(source, cache, staging, folder)
    after = sorted((path, path.stat().st_mtime_ns) for path in contents(cache) if path.is_file())
    assert after == before


@pytest.mark.parametrize("pattern", ["*test.array_record*", "dataset_info.json"])
def test_a_damaged_version_is_named(prepared, cache, pattern):
    source, _, whole = prepared
    shutil.copytree(whole, cache)
    (file,) = cache.rglob(pattern)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(
        UserError, match=f"{file.parent} cannot be read as mnist .*: delete that folder"
    ):
        tfds_cache.load(source)


def test_a_version_that_only_tensorflow_reads(prepared, cache):
    source, _, whole = prepared
    shutil.copytree(whole, cache)
    (info,) = cache.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="holds mnist as tfrecord, which needs TensorFlow"):
        tfds_cache.load(source)


def test_labels_out_of_range_leave_nothing(make_source, cache):
    source, folder = make_source(largest_label=10)
    with pytest.raises(UserError, match="label 10 of training example 10"):
        tfds_cache.load(source, folder)
    assert not contents(cache)


@pytest.mark.parametrize("make", [small_mnist, small_svhn])
def test_a_cache_that_cannot_be_made(make, website, tmp_path, monkeypatch):
    source = website(make(tmp_path / "files"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to .*Not a directory.*TFDS_DATA_DIR"):
        tfds_cache.load(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_permission(make_source, cache):
    source, folder = make_source()
    cache.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written to .*Permission denied"):
        tfds_cache.load(source, folder)
    assert not contents(cache)


def test_no_space_left_leaves_nothing(make_source, cache):
    """A limit on the size of files stands in for the disk: writing fails in the same places."""
    source, folder = make_source(train_size=400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written to .*: make room"):
            tfds_cache.load(source, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not contents(cache)


def test_a_full_disk_at_the_last_moment_leaves_no_set(make_source, cache, monkeypatch):
    source, folder = make_source()
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if Path(target).is_relative_to(cache / "mnist"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(UserError, match="No space left on device"):
        tfds_cache.load(source, folder)
    assert contents(cache) == [cache / "mnist"]  # an empty folder


@pytest.mark.parametrize("make", [small_mnist, small_svhn])
def test_no_internet_and_no_files(make, tmp_path, cache):
    source = make(tmp_path / "files")
    begin = time.monotonic()
    names = " and ".join(file.name for file in source.files)
    with pytest.raises(UserError, match=f"host.invalid cannot be reached .*{names}.*--data-dir"):
        tfds_cache.load(source)
    assert time.monotonic() - begin < 10
    assert not cache.exists()


def test_a_network_that_swallows_everything(tmp_path, cache, monkeypatch):
    assert tfds_cache.PROBE_SECONDS < 8
    monkeypatch.setattr(tfds_cache, "PROBE_SECONDS", 0.2)

    def silence(*_, **__):
        time.sleep(2)
        raise requests.ConnectionError("after a while")

    monkeypatch.setattr(requests, "get", silence)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached \(no answer in 0.2 seconds\)"):
        tfds_cache.load(MNIST)
    assert time.monotonic() - begin < 2


def test_prepares_what_it_downloads(make_source, website, cache):
    small, folder = make_source()
    source = website(small)
    assert not tfds_cache.has(source)
    require_equal(tfds_cache.load(source), source.load(source.find(folder)))
    assert tfds_cache.has(source)


def test_files_of_which_an_md5_is_known_are_downloaded(website, cache, tmp_path):
    source = website(small_qmnist(tmp_path / "files"))
    require_equal(tfds_cache.load(source), source.load(source.find(tmp_path / "files")))
    assert tfds_cache.has(source)


def test_downloads_once_into_a_folder_that_serves_as_data_dir(website, cache, tmp_path, capsys):
    source = website(small_svhn(tmp_path / "files"))
    assert not tfds_cache.has(source)
    dataset = tfds_cache.load(source)
    assert tfds_cache.has(source)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Downloading train_32x32.mat and test_32x32.mat to ")

    for file in (tmp_path / "files").iterdir():
        file.unlink()
    require_equal(tfds_cache.load(source), dataset)
    folder = cache / "downloads" / "svhn_cropped"
    require_equal(source.load(source.find(folder)), dataset)
    assert sorted(path for path in cache.rglob("*") if path.is_file()) == [
        folder / "test_32x32.mat",
        folder / "train_32x32.mat",
    ]


@pytest.mark.parametrize("make", [small_mnist, small_svhn, small_qmnist])
def test_a_download_with_a_wrong_checksum_leaves_nothing(make, website, cache, tmp_path):
    source = website(make(tmp_path / "files"))
    (tmp_path / "files" / source.files[-1].name).write_bytes(b"changed by its publisher")
    with pytest.raises(
        UserError, match="could not be downloaded .*wrong checksum|is not the official"
    ):
        tfds_cache.load(source)
    assert not [path for path in contents(cache) if path.is_file()]


def test_a_publisher_that_has_moved(make_source, website, cache):
    source, folder = make_source()
    (folder / source.files[0].name).unlink()
    with pytest.raises(UserError, match=r"cannot be reached \(it answers 404\)"):
        tfds_cache.load(website(source))


@pytest.mark.parametrize("variable", [True, False])
def test_the_default_cache(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv("TFDS_DATA_DIR", "~/named")
    else:
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    expected = tmp_path / ("named" if variable else "tensorflow_datasets")
    assert tfds_cache.cache_folder() == expected
