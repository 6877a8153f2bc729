"""What a word of a command line may stand for, in functions that argparse calls with it."""

import argparse
import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Gather(argparse.Action):
    """Lists what an option was given, every time it was given, in place of its default."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        """Adds values to those that were given before."""
        present: Any = getattr(namespace, self.dest, None)
        before = [] if present is self.default else present
        setattr(namespace, self.dest, [*before, *values])


def reader(kind: Any) -> Callable[[str], Any]:
    """What makes a value of a type of a word, for argparse, with a message that says the type."""
    names = {int: "a whole number", float: "a number"}

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {names[kind]}") from error

    return read if kind in names else kind


def positive(text: str, least: int = 1) -> int:
    """A whole number of at least 1, or of another bound."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


several = functools.partial(positive, least=2)
"""A whole number of at least 2."""


def seconds(text: str) -> float:
    """A duration above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


_UNITS = {unit: 1000**power for power, unit in enumerate(("", "k", "m", "g", "t"))}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("kmgt", start=1)}


def size_in_bytes(text: str) -> int:
    """A size such as `16GB`, `512MiB` or `1000000`, in bytes."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]i?)?b?", text.lower())
    size = match and float(match[1]) * _UNITS[match[2] or ""]
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 16GB, 512MiB or 1000000")
    return int(size)


def new_file(text: str) -> Path:
    """A file to be written, in a folder that is there."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {path.parent} is no folder")
    return path


def list_of(parse: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A list `A,B,C` of what another function makes of a word, each once."""

    def values(text: str) -> list[Any]:
        parts = text.split(",")
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list such as A,B,C")
        return [parse(part) for part in dict.fromkeys(parts)]

    return values
