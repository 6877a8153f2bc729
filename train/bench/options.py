"""The options of `python -m train bench`; it imports no framework."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

GROWTHS = ("batch", "iterations", "capsules")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command, except those that `fit` has too."""
    sweep = parser.add_argument_group("what to compare (lists; all combinations are measured)")
    sweep.add_argument(
        "--batch-sizes", type=_list_of(_count), metavar="N,N,...", help="images in a step"
    )
    sweep.add_argument("--dtypes", type=_list_of(str), metavar="NAME,...", help="such as float32")
    sweep.add_argument(
        "--iterations", type=_list_of(_count), metavar="N,N,...", help="routing iterations"
    )
    sweep.add_argument(
        "--implementations",
        type=_list_of(str),
        metavar="NAME,...",
        help="the model's option routing_implementation; 'none' leaves the choice to the library",
    )
    sweep.add_argument(
        "--primary-types",
        type=_list_of(_count),
        metavar="N,N,...",
        help="types of primary capsules, which decide how many there are",
    )
    sweep.add_argument(
        "--grow",
        nargs="+",
        choices=GROWTHS,
        default=[],
        metavar="|".join(GROWTHS),
        help="how cost grows, one quantity at a time: batch 1, 2, 4, ... to the largest that "
        "fits, iterations 1 to 5, primary capsules of 8 to 128 types",
    )
    instead = parser.add_argument_group("what to measure instead").add_mutually_exclusive_group()
    instead.add_argument(
        "--feed", action="store_true", help="images a second of the data feeds, without training"
    )
    instead.add_argument(
        "--predict-memory",
        type=_bytes,
        metavar="BYTES",
        help="the largest batch whose step fits in so much memory of a device, such as 16GB",
    )
    instead.add_argument(
        "--scaling",
        action="store_true",
        help="weak and strong scaling over the devices present: with --batch-size images on each, "
        "and with as many on all together",
    )
    scaling = parser.add_argument_group("with --scaling, a prediction for more devices")
    scaling.add_argument(
        "--link-bandwidth",
        type=_bytes,
        metavar="BYTES",
        help="what a device sends in a second over its slowest link, such as 25GB",
    )
    scaling.add_argument(
        "--predict-devices",
        type=_list_of(_count),
        metavar="N,N,...",
        default=[8, 64, 512],
        help="for how many (default: 8,64,512)",
    )
    parser.add_argument(
        "--repetitions", type=_count, default=5, metavar="N", help="rounds (default: 5)"
    )
    parser.add_argument(
        "--seconds",
        type=_duration,
        default=0.5,
        metavar="S",
        help="about how long a round is (default: 0.5)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw them into this folder")


def _list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    def values(text: str) -> list[T]:
        parts = text.split(",")
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list such as A,B,C")
        return [kind(part) for part in dict.fromkeys(parts)]

    return values


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]i?)?b?", text.lower())
    size = match and float(match[1]) * {**_UNITS, **_BINARY_UNITS}[match[2] or ""]
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 16GB, 512MiB or 1000000")
    return int(size)
