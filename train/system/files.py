"""Files that are written whole or not at all, and one sentence for a file or disk that fails."""

import contextlib
import io
import json
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from train.system.errors import UserError, first_line


@contextlib.contextmanager
def reading(path: Path, kind: str, advice: str) -> Iterator[None]:
    """Makes one sentence of what a library raises that reads a file, and heeds no warning of it.

    The sentence has what kind the file is read as, and the advice what to do where it is none.

    Raises:
        UserError: as the body, and where that raises anything else.
    """
    try:
        with _without_warnings():
            yield
    except UserError:
        raise
    except Exception as error:  # libraries report damage in exceptions of any kind
        if not path.exists():
            raise UserError(f"there is no file {path}.") from error
        raise UserError(
            f"{path} cannot be read as {kind} ({first_line(error)}): {advice}."
        ) from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Heeds no warning of oddities that a library copes with, where that is known to be safe."""
    # The filters are those of the whole process, which threads would change under one another.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Makes one sentence of a full disk or a missing permission; the option named the path.

    Raises:
        UserError: where the body raises `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or give "
            f"permission there, or choose another {option}."
        ) from error


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Tells on stderr that a result, which is returned anyway, cannot be kept in a folder."""
    try:
        yield
    except OSError as error:
        print(
            f"note: {folder} cannot be written ({error.strerror or error}), so nothing of this is "
            "kept there",
            file=sys.stderr,
        )


def finite_or_none(value: float) -> float | None:
    """What JSON has for a number: null for one that is not finite."""
    return value if math.isfinite(value) else None


MOST_BYTES, MOST_LEVELS = 2**24, 50
"""Of a JSON file that somebody may have written, before it is refused unread; of its nesting."""


def read_json(path: Path) -> Any:
    """The plain values of a JSON file from elsewhere, of which every text can be a name of a file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no file, such as a device, too large, no JSON, or nested too deeply, or
            holds text that is none.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        values = json.loads(content.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _require_plain(values, MOST_LEVELS)
    return values


def _require_plain(values: Any, levels: int) -> None:
    if not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(values, str) and "\0" in values:
        raise ValueError(f"{values!r} is no text")
    if isinstance(values, str):
        values.encode(errors="surrogateescape")  # names of files are bytes
    elif isinstance(values, dict):
        _require_plain([*values, *values.values()], levels)
    elif isinstance(values, list):
        for value in values:
            _require_plain(value, levels - 1)


def write_json(path: Path, values: Any) -> None:
    """Writes plain values as a JSON file; see `write_whole`."""
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    write_whole(path, text.encode())


def write_figure(path: Path, figure: Any) -> None:
    """Writes a figure of matplotlib, which is slow to import, as a PNG; see `write_whole`."""
    from train.system.lettering import give_fonts

    give_fonts(figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    write_whole(path, png.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    with staged(path) as file:
        file.write(content)


@contextlib.contextmanager
def staged(path: Path) -> Iterator[BinaryIO]:
    """A file to be written piece by piece, which is there when the body has ended, or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # a file of a write that was cut off, or a link to elsewhere
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
