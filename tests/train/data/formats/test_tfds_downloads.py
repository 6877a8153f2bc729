"""Official files that are downloaded: whole and verified in their place, or nothing."""

import dataclasses
import functools
import http.server
import threading

import numpy as np
import pytest

from tests.train.data.small_files import small_svhn
from train.data.formats import tfds_downloads
from train.data.sources import fetch, svhn
from train.system.errors import UserError


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def website(tmp_path):
    """A web server on this machine that offers the files of a small source."""
    folder = tmp_path / "files"
    source = small_svhn(folder)
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        files = tuple(dataclasses.replace(file, url=url + file.name) for file in source.files)
        yield dataclasses.replace(source, files=files), folder
        server.shutdown()


def test_downloads_once_into_a_folder_that_serves_as_data_dir(website, tmp_path, capsys):
    source, folder = website
    cache = tmp_path / "cache"
    assert not fetch.is_at_hand(source, cache_dir=cache)
    dataset = fetch.load(source, cache_dir=cache)
    assert fetch.is_at_hand(source, cache_dir=cache)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Downloading train_32x32.mat and test_32x32.mat to ")

    for file in folder.iterdir():
        file.unlink()
    again = fetch.load(source, cache_dir=cache)
    by_name = fetch.load(source, data_dir=cache / "downloads" / "svhn_cropped")
    for other in (again, by_name):
        np.testing.assert_array_equal(dataset.train.images, other.train.images)
    assert sorted(path.name for path in cache.rglob("*")) == [
        "downloads",
        "svhn_cropped",
        "test_32x32.mat",
        "train_32x32.mat",
    ]


def test_a_download_with_a_wrong_checksum_leaves_nothing(website, tmp_path):
    source, folder = website
    (folder / svhn.TEST).write_bytes(b"changed by its publisher")
    with pytest.raises(UserError, match="could not be downloaded .*wrong checksum"):
        tfds_downloads.download(source, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_no_network_and_no_files(tmp_path):
    source = small_svhn(tmp_path / "files")
    files = tuple(dataclasses.replace(f, url="http://host.invalid/x") for f in source.files)
    source = dataclasses.replace(source, files=files)
    with pytest.raises(UserError, match="host.invalid cannot be reached .*train_32x32.mat and te"):
        tfds_downloads.download(source, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made(website, tmp_path):
    source, _ = website
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .*Not a directory.*TFDS_DATA_DIR"):
        tfds_downloads.download(source, tmp_path / "file" / "cache")
