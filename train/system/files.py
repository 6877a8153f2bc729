"""Files that are written whole or not at all, and one sentence for a file or disk that fails."""

import contextlib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.system.errors import UserError, first_line


@contextlib.contextmanager
def reading(path: Path, kind: str, advice: str) -> Iterator[None]:
    """Makes one sentence of what a library raises that reads a file, and heeds no warning of it.

    The sentence has what kind the file is read as, and the advice what to do where it is none.

    Raises:
        UserError: as the body, and where that raises anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities that the library copes with
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
def writing(folder: Path) -> Iterator[None]:
    """Makes one sentence of a full disk or a missing permission.

    Raises:
        UserError: where the body raises `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make room or give "
            "permission there, or choose another --out."
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
    staged = path.with_name(f".{path.name}.new")
    try:
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
