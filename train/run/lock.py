"""One process at a time in a run's folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from train.system.errors import UserError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder.

    The system keeps the lock on the folder itself: it leaves no file, and ends with the process,
    however that ends. A file system without such locks is taken as it is.

    Args:
        folder: a folder that exists.

    Raises:
        UserError: if another process is training there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {folder}: wait for it, end it, or choose another "
                "--out."
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
