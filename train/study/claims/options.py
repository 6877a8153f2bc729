"""The command-line options of `python -m train claims`."""

import argparse
from pathlib import Path

from train.study.claims.catalog import list_claims
from train.study.claims.definition import BUDGETS


def add_claims_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser, but for the folder of the data."""
    parser.add_argument("claim", metavar="NAME", help=f"one of: {', '.join(list_claims())}")
    parser.add_argument(
        "--budget",
        choices=BUDGETS,
        default="small",
        help="small: reduced networks for 10 minutes of two CPU cores, which prove nothing; paper: "
        "the paper's, for an accelerator (default: small)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        default=3,
        help="networks of each kind, with the seeds 0 to N - 1 (default: 3)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder (default: runs/claims/NAME-BUDGET)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="train anew what the folder has of other options"
    )
