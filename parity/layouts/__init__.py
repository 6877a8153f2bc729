"""Weight layouts of public PyTorch networks, one a TOML file, and how they are read and found."""

import functools
from pathlib import Path

from parity.layouts.match import Entry, Match, match, match_parameters
from parity.layouts.table import DIALECT_FIELDS, REDUCTIONS, Layout, Row, read_layout
from train.system.errors import UserError

_FOLDER = Path(__file__).parent / "published"
_FILES = {path.stem.replace("_", "-"): path for path in sorted(_FOLDER.glob("*.toml"))}


def list_layouts() -> list[str]:
    """The names of the layouts that come with the program."""
    return sorted(_FILES)


def builtin_layouts() -> list[Layout]:
    """The layouts that come with the program."""
    return [_builtin(name) for name in list_layouts()]


@functools.cache
def _builtin(name: str) -> Layout:
    return read_layout(_FILES[name])


def get_layout(name: str) -> Layout:
    """A layout by its name, one of its other names, or the path of a TOML file.

    Raises:
        UserError: if there is none of that name, or the file is no layout.
    """
    known = name.replace("_", "-")
    if known in _FILES:
        return _builtin(known)
    if Path(name).suffix == ".toml" or Path(name).is_file():
        return read_layout(Path(name))
    for layout in builtin_layouts():
        if known in layout.aliases:
            return layout
    raise UserError(
        f"unknown layout {name!r}, choose from: {', '.join(list_layouts())}, or name a TOML file."
    )


__all__ = [
    "DIALECT_FIELDS",
    "REDUCTIONS",
    "Entry",
    "Layout",
    "Match",
    "Row",
    "builtin_layouts",
    "get_layout",
    "list_layouts",
    "match",
    "match_parameters",
    "read_layout",
]
