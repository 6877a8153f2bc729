"""tensorflow-datasets' cache: what we write is what stock reads, and failures leave nothing."""

import errno
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from train.data.formats import internet, tfds_cache
from train.data.sources.idx_source import TEST_IMAGES
from train.system.errors import UserError


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def contents(folder: Path) -> list[Path]:
    return list(folder.rglob("*")) if folder.exists() else []


def test_stock_tensorflow_datasets_reads_what_was_prepared(make_source, cache):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    official = source.read(source.find(folder))

    stock = tfds.builder("mnist", data_dir=cache)
    assert stock.is_prepared()
    assert stock.info.splits["train"].num_examples == len(official.train)
    for name, split in (("train", official.train), ("test", official.test)):
        examples = stock.as_data_source(name, decoders={"image": tfds.decode.SkipDecoding()})
        positions = tfds_cache.official_positions(name, len(split))
        assert [example["label"] for example in examples] == split.labels[positions].tolist()
    restored = tfds.builder_from_directory(stock.data_dir)
    assert restored.info.features["image"].shape == (28, 28, 1)
    assert "tensorflow" not in sys.modules


def test_the_folder_is_laid_out_as_by_stock_tensorflow_datasets(make_source, cache):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    version = str(tfds.builder_cls("mnist").VERSION)
    assert {str(path.relative_to(cache)) for path in contents(cache) if path.is_file()} == {
        f"mnist/{version}/dataset_info.json",
        f"mnist/{version}/features.json",
        f"mnist/{version}/mnist-train.array_record-00000-of-00001",
        f"mnist/{version}/mnist-test.array_record-00000-of-00001",
    }
    info = json.loads((cache / "mnist" / version / "dataset_info.json").read_text())
    stock = tfds.builder_cls("mnist")
    assert (info["name"], info["version"]) == ("mnist", version)
    assert info["moduleName"] == stock.__module__


def test_reads_back_the_official_order(make_source, cache):
    source, folder = make_source(train_size=200)
    tfds_cache.prepare(source, cache, data_dir=folder)
    ours, official = tfds_cache.read(source, cache), source.read(source.find(folder))
    np.testing.assert_array_equal(ours.train.images, official.train.images)
    np.testing.assert_array_equal(ours.train.labels, official.train.labels)
    np.testing.assert_array_equal(ours.test.images, official.test.images)


def test_nothing_is_printed_where_programs_read(make_source, cache, capsys):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"Preparing mnist in {cache}, once.\n"


def test_a_wrong_checksum_leaves_nothing(make_source, cache):
    source, folder = make_source()
    (folder / TEST_IMAGES).write_bytes(b"not it")
    with pytest.raises(UserError, match=f"{folder / TEST_IMAGES} is not the official file"):
        tfds_cache.prepare(source, cache, data_dir=folder)
    assert not cache.exists()


def test_labels_out_of_range_leave_nothing(make_source, cache):
    source, folder = make_source(largest_label=10)
    with pytest.raises(UserError, match="label 10 of training example 10"):
        tfds_cache.prepare(source, cache, data_dir=folder)
    assert not contents(cache)


def test_a_cache_that_cannot_be_made(make_source, tmp_path):
    source, folder = make_source()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be prepared in .*Not a directory.*TFDS_DATA_DIR"):
        tfds_cache.prepare(source, tmp_path / "file" / "cache", data_dir=folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_permission(make_source, cache):
    source, folder = make_source()
    cache.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be prepared in .*Permission denied"):
        tfds_cache.prepare(source, cache, data_dir=folder)
    assert not contents(cache)


def test_no_space_left_leaves_nothing(make_source, cache):
    """A limit on the size of files stands in for the disk: writing fails in the same places."""
    source, folder = make_source(train_size=400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be prepared in .*: make room"):
            tfds_cache.prepare(source, cache, data_dir=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not contents(cache)


def test_a_full_disk_at_the_last_moment_leaves_nothing(make_source, cache, monkeypatch):
    source, folder = make_source()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tfds_cache, "_publish", full)
    with pytest.raises(UserError, match="No space left on device"):
        tfds_cache.prepare(source, cache, data_dir=folder)
    assert not contents(cache)


def test_a_faster_process_wins(make_source, cache):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    before = sorted((path, path.stat().st_mtime_ns) for path in contents(cache) if path.is_file())
    tfds_cache.prepare(source, cache, data_dir=folder)
    after = sorted((path, path.stat().st_mtime_ns) for path in contents(cache) if path.is_file())
    assert after == before


@pytest.mark.parametrize("pattern", ["*test.array_record*", "dataset_info.json"])
def test_a_damaged_version_is_named(make_source, cache, pattern):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    (file,) = cache.rglob(pattern)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{file.parent} is damaged .*: delete that folder"):
        tfds_cache.read(source, cache)


def test_a_version_that_only_tensorflow_reads(make_source, cache):
    source, folder = make_source()
    tfds_cache.prepare(source, cache, data_dir=folder)
    (info,) = cache.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="holds mnist as tfrecord, which needs TensorFlow"):
        tfds_cache.read(source, cache)


def test_no_network_and_no_files(make_source, cache):
    source, _ = make_source()
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"host.invalid cannot be reached .*--data-dir"):
        tfds_cache.prepare(source, cache, data_dir=None)
    assert time.monotonic() - begin < 10
    assert not cache.exists()


def test_a_network_that_swallows_everything(make_source, cache, monkeypatch):
    source, _ = make_source()
    assert internet.PROBE_SECONDS < 8
    monkeypatch.setattr(internet, "PROBE_SECONDS", 0.2)

    def silence(*_, **__):
        time.sleep(3)
        raise requests.ConnectionError("after a while")

    monkeypatch.setattr(requests, "get", silence)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached \(no answer in 0.2 seconds\)"):
        tfds_cache.prepare(source, cache, data_dir=None)
    assert time.monotonic() - begin < 2


@pytest.fixture
def website(make_source):
    """A web server on this machine that offers the files of a small source."""
    import dataclasses
    import functools
    import http.server
    import threading

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    source, folder = make_source()
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        yield dataclasses.replace(source, url=url), folder
        server.shutdown()


def test_downloads_where_there_is_a_network(website, cache):
    source, folder = website
    tfds_cache.prepare(source, cache, data_dir=None)
    ours, official = tfds_cache.read(source, cache), source.read(source.find(folder))
    np.testing.assert_array_equal(ours.train.images, official.train.images)


def test_a_download_with_a_wrong_checksum_leaves_nothing(website, cache):
    source, folder = website
    (folder / TEST_IMAGES).write_bytes(b"changed by its publisher")
    with pytest.raises(UserError, match="could not be downloaded .*wrong checksum"):
        tfds_cache.prepare(source, cache, data_dir=None)
    assert not contents(cache)


def test_a_publisher_that_has_moved(website, cache):
    source, folder = website
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"cannot be reached \(it answers 404\)"):
        tfds_cache.prepare(source, cache, data_dir=None)
