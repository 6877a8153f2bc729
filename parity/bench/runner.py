"""What `python -m parity bench` does with its options: it measures, prints and writes."""

import argparse
import sys
from collections.abc import Sequence

from parity.bench.measure import machine, make_work, measure, summarise
from parity.bench.tables import draw, table
from parity.cli.bench import CONTENDER_NAMES, available_cores
from train.system.errors import UserError
from train.system.files import write_json


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
        if name not in CONTENDER_NAMES:
            raise UserError(
                f"there is no contender {name!r}, choose from: {', '.join(CONTENDER_NAMES)}."
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
