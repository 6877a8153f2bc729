"""What `python -m parity gpu-report` does: part after part, each within its share of the time."""

import argparse
import dataclasses
import datetime
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.bench.gpu.parts import PARTS, Part
from parity.bench.gpu.plan import FULL, TINY
from parity.bench.gpu.process import PartError, run_within
from parity.bench.gpu.table import markdown
from parity.bench.gpu.task import Task, with_compiled_programs
from train.system.errors import UserError
from train.system.files import finite_or_none, write_json, writing
from train.system.machine import describe_machine

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch", "numpy")

RESERVE = 5.0
"""Seconds that are kept back for ending processes and writing."""


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measures, and writes `report.json` and `report.md` after every part.

    Args:
        options: those of `add_report_options`.
        arguments: how they were given, for the report.

    Returns:
        The exit code: 0, or 1 if a part did not come to its end.

    Raises:
        UserError: on bad input, or if the folder cannot be written.
    """
    until = time.monotonic() + 60 * options.minutes
    _check(options)
    plan = TINY if options.tiny else FULL
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(("python", "-m", "parity", *arguments)),
        "versions": describe_machine(PACKAGES),
        "plan": dataclasses.asdict(plan),
        "parts": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for number, part in enumerate(PARTS):
            left = until - RESERVE - time.monotonic()
            seconds = left * part.weight / sum(later.weight for later in PARTS[number:])
            print(f"{part.name}: up to {seconds:.0f} s", file=sys.stderr, flush=True)
            task = Task(
                plan=plan,
                data_dir=options.data_dir,
                out=options.out,
                scratch=Path(scratch),
                found={name: done["found"] for name, done in report["parts"].items()},
                until=time.monotonic() + seconds,
            )
            _do(part, task, report, seconds)
    print(markdown(report), end="")
    return int(any(done["failure"] for done in report["parts"].values()))


def _do(part: Part, task: Task, report: dict[str, Any], seconds: float) -> None:
    done: dict[str, Any] = {"failure": None, "found": {}, "seconds": 0.0}
    report["parts"][part.name] = done
    begun = time.monotonic()
    try:
        for found in run_within(seconds, with_compiled_programs, part.measure, task):
            done["found"] |= _finite(found)
            done["seconds"] = time.monotonic() - begun
            _write(task.out, report)
    except PartError as error:
        done["failure"] = str(error)
        print(f"{part.name} failed: {error}", file=sys.stderr, flush=True)
    done["seconds"] = time.monotonic() - begun
    _write(task.out, report)


def _write(out: Path, report: Mapping[str, Any]) -> None:
    with writing(out):
        write_json(out / "report.json", report)
        (out / "report.md").write_text(markdown(report), encoding="utf-8")


def _finite(value: Any) -> Any:
    """A value as JSON has it: null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return finite_or_none(value) if isinstance(value, float) else value


def _check(options: argparse.Namespace) -> None:
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise UserError(f"--minutes is {options.minutes}, but must be more than 0.")
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise UserError(f"--data-dir {options.data_dir} is no folder: name the one with the files.")
    with writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
