"""The options with which `python -m parity check` compares a module that somebody else wrote."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from train.system.errors import UserError

InputLayout = Literal["nchw", "nhwc", "flat"]
INPUT_LAYOUTS: tuple[InputLayout, ...] = ("nchw", "nhwc", "flat")
SIDES = (28, 8, 32)
"""Sides of the images of MNIST, of the embedded digits and of CIFAR-10, tried in this order."""


def add_against_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options with which `check` compares a module to a parser."""
    group = parser.add_argument_group("your own module")
    group.add_argument(
        "--against",
        metavar="FILE.py:CLASS",
        help="compare with this module instead, made by calling CLASS or a function without "
        "arguments; the file's code is run",
    )
    group.add_argument(
        "--weights", metavar="FILE", type=Path, help="its weights, which capsjax is given, too"
    )
    group.add_argument(
        "--output",
        metavar="KEY",
        help="which output holds capsule lengths or poses: an index or a key, with dots where they "
        "are nested (default: the one that has such a shape)",
    )
    group.add_argument(
        "--input",
        choices=INPUT_LAYOUTS,
        help="how it wants its images (default: what it takes, tried in this order)",
    )
    group.add_argument(
        "--image-shape",
        metavar="HxW",
        type=_height_and_width,
        help="size of its images (default: that of the decoder, or what it takes of "
        f"{', '.join(map(str, SIDES))})",
    )


def refuse_without_module(options: argparse.Namespace) -> None:
    """Refuses the options of a module where none is named.

    Raises:
        UserError: if one of them is given without `--against`.
    """
    for name in ("weights", "output", "input", "image_shape"):
        if options.against is None and getattr(options, name) is not None:
            given = f"--{name.replace('_', '-')}"
            raise UserError(f"{given} is of a module of yours: name that with --against.")


def _height_and_width(given: str) -> tuple[int, int]:
    """`28x28` as two numbers."""
    sides: Sequence[str] = given.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{given!r} is not of the form HxW, such as 28x28")
    return int(sides[0]), int(sides[1])
