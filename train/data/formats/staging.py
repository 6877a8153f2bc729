"""Work in tensorflow-datasets' cache that leaves no half of anything there, and prints nothing."""

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

CLEANING_SECONDS = 3.0


@contextlib.contextmanager
def staging_folder(name: str, cache: Path) -> Iterator[Path]:
    """A hidden folder in the cache that is gone afterwards, whatever happens.

    When one download fails, tensorflow-datasets' threads may go on writing the others for a while.

    Args:
        name: of the data set.
        cache: made where it does not exist.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        yield folder
    finally:
        deadline = time.monotonic() + CLEANING_SECONDS
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps tensorflow-datasets' progress bars and messages off the program's output."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
