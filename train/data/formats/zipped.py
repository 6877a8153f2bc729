"""Members of zip archives, read in pieces and without a file on the disk."""

import contextlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from train.system.errors import UserError, first_line

# What zipfile and the decompressors tell damage, encryption and methods that they do not know by.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
)


@contextlib.contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive.

    Raises:
        UserError: if it is missing, unreadable or damaged, which the reading shows.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            yield opened
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}.") from error
    except _DAMAGE as error:
        raise UserError(
            f"{path} is no sound zip archive ({first_line(error)}): get it again, or write it anew."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check what it is and its "
            "permissions."
        ) from error


@contextlib.contextmanager
def member(path: Path, name: str) -> Iterator[BinaryIO]:
    """Opens a member of a zip archive.

    Raises:
        UserError: if the archive cannot be read, or lacks it.
    """
    with archive(path) as opened:
        if name not in opened.namelist():
            raise UserError(f"{path} lacks the file {name}: get it again, or write it anew.")
        with opened.open(name) as file:
            yield cast(BinaryIO, file)
