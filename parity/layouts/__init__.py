"""Weight layouts of public PyTorch networks, one a TOML file, and how they are read and found."""

import functools
from pathlib import Path

from parity.layouts.match import Match, match, match_parameters
from parity.layouts.table import Layout, read_layout
from train.system.errors import UserError

__all__ = [
    "Layout",
    "Match",
    "builtin_layouts",
    "get_layout",
    "match",
    "match_parameters",
    "read_layout",
]

_FILES = {
    path.stem.replace("_", "-"): path
    for path in sorted((Path(__file__).parent / "published").glob("*.toml"))
}


def builtin_layouts() -> list[Layout]:
    """The layouts that come with the program."""
    return [_builtin(name) for name in _FILES]


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
        f"unknown layout {name!r}, choose from: {', '.join(_FILES)}, or name a TOML file."
    )
