"""The options of `python -m parity bench`; it imports no framework."""

import argparse
import os
from pathlib import Path

CONTENDER_NAMES = ("capsjax", "torch-reference", "torch-fast", "torch-compile")
DEFAULT = ("capsjax", "torch-reference", "torch-fast")


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[32, 128], metavar="N", help="images in a step"
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=list(DEFAULT),
        metavar="NAME",
        help=f"who takes part, of {', '.join(CONTENDER_NAMES)} (default: {', '.join(DEFAULT)})",
    )
    parser.add_argument(
        "--baseline", default="torch-fast", metavar="NAME", help="who ratios are to"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation"
    )
    parser.add_argument(
        "--routing-iterations", type=int, default=3, metavar="N", help="routing iterations"
    )
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="rounds")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="about how long a turn is"
    )
    parser.add_argument(
        "--cores",
        type=int,
        default=available_cores(),
        metavar="N",
        help="cores for each contender (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a bar chart (PNG) there")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
