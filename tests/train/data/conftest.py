"""Small data sets for the tests of the data package."""

import dataclasses
import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from train.data import Split
from train.data.official import Source


@pytest.fixture(scope="session")
def split() -> Split:
    """23 random 6x5 images in four classes."""
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (23, 6, 5, 1), dtype=np.uint8),
        labels=rng.integers(0, 4, 23, dtype=np.int32),
    )


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[Callable[[Source], Source]]:
    """Publishes the files of a source, which are in the folder `files`, on this machine."""
    handler = functools.partial(_Silent, directory=str(tmp_path / "files"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serve = functools.partial(server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()

        def publish(source: Source) -> Source:
            url = f"http://127.0.0.1:{server.server_port}/"
            files = (dataclasses.replace(file, url=url + file.name) for file in source.files)
            return dataclasses.replace(source, files=tuple(files))

        yield publish
        server.shutdown()
