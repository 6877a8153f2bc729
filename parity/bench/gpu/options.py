"""The options of `python -m parity gpu-report`; it imports no framework."""

import argparse
from pathlib import Path


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for report.json, report.md and the runs, without their checkpoints",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with MNIST's official files, where tensorflow-datasets has not prepared it",
    )
    parser.add_argument(
        "--minutes", type=float, default=9.0, metavar="M", help="the time there is (default: 9)"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a dry run: tiny networks on the embedded digits"
    )
