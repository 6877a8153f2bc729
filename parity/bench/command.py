"""The options of `python -m parity bench`, and what it prints and writes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from parity.bench.contenders import CONTENDERS
from parity.bench.measure import available_cores, machine, make_work, measure, summarise
from parity.bench.report import draw, table
from train.errors import UserError
from train.run import write_json

DEFAULT = ("capsjax", "torch-reference", "torch-fast")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[32, 128], metavar="N", help="images in a step"
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=list(DEFAULT),
        metavar="NAME",
        help=f"who takes part, of {', '.join(CONTENDERS)} (default: {', '.join(DEFAULT)})",
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


def run(options: argparse.Namespace) -> None:
    """Measures, prints a table, and writes what was asked for.

    Raises:
        UserError: on bad input.
    """
    _check(options)
    works = [
        make_work(size, dtype=options.dtype, iterations=options.routing_iterations)
        for size in options.batch_size
    ]
    results = measure(
        options.contenders,
        works,
        repetitions=options.repetitions,
        seconds=options.seconds,
        cores=options.cores,
        note=lambda text: print(text, file=sys.stderr, flush=True),
    )
    rows = summarise(results, options.baseline)
    here = machine(options.cores)
    print(table(rows, options.baseline))
    try:
        if options.json:
            write_json(options.json, {"machine": here, "dtype": options.dtype, "rows": rows})
        if options.plot:
            title = f"CapsNet, {options.dtype}, {options.cores} cores, {_devices(rows)}"
            draw(options.plot, rows, title)
    except OSError as error:
        raise UserError(
            f"{error.filename or options.json} cannot be written ({error.strerror})."
        ) from error


def _devices(rows: Sequence[dict]) -> str:
    return ", ".join(sorted({row["device"] for row in rows if not row["failure"]})) or "no device"


def _check(options: argparse.Namespace) -> None:
    for name in (*options.contenders, options.baseline):
        if name not in CONTENDERS:
            raise UserError(
                f"there is no contender {name!r}, choose from: {', '.join(CONTENDERS)}."
            )
    positive = {
        "--batch-size": min(options.batch_size),
        "--routing-iterations": options.routing_iterations,
        "--repetitions": options.repetitions,
        "--seconds": options.seconds,
        "--cores": options.cores,
    }
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"{name} is {value}, but must be more than 0.")
    if options.cores > available_cores():
        raise UserError(f"--cores is {options.cores}, but there are {available_cores()}.")
    for path in (options.json, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"{path} cannot be written: {path.parent} is no folder.")
