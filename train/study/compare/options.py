"""The command-line options of `python -m train compare`."""

import argparse
from pathlib import Path

COMMON = (
    "epochs",
    "steps",
    "batch_size",
    "learning_rate",
    "routing_iterations",
    "max_shift",
    "crop",
    "dtype",
)
"""The fields of `FitConfig` that may be given for all cells."""


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser, but for those of `COMMON`."""
    parser.add_argument(
        "--models", metavar="NAME", nargs="+", default=["capsnet"], help="(default: capsnet)"
    )
    parser.add_argument(
        "--routings",
        metavar="NAME",
        nargs="+",
        default=["published"],
        help="names, FILE.py:NAME of your own (whose code is run), or published, the one that a "
        "model came with (default: published)",
    )
    parser.add_argument(
        "--datasets", metavar="NAME", nargs="+", default=["digits"], help="(default: digits)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        default=3,
        help="networks of each kind, with the seeds 0 to N - 1, trained at once (default: 3)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder of the tables and figures"
    )
    parser.add_argument(
        "--robustness-examples",
        type=int,
        metavar="N",
        default=2000,
        help="test images that are turned, scaled, sheared, moved and made noisy (default: 2000)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="measure anew what the folder has from other options",
    )
