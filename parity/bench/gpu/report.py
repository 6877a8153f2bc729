"""What `python -m parity gpu-report` does: part after part, each within its share of the time."""

import dataclasses
import datetime
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parity.bench.gpu import device, programs
from parity.bench.gpu.plan import Measure, Plan, Task, with_compiled_programs
from parity.bench.gpu.table import markdown
from parity.check.report import finite
from train.bench.worker import WorkerError, within, worker
from train.system.errors import UserError
from train.system.files import write_json, write_whole, writing
from train.system.machine import describe_machine

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch", "numpy")

RESERVE = 5.0
"""Seconds that are kept back for ending processes and writing."""


class Part(NamedTuple):
    """A part of the report, measured in a process of its own.

    Its weight is its share of the time that is left, beside those of the parts after it; the
    command `alone` does the same, or much the same, outside of the report.
    """

    name: str
    measure: Measure
    weight: float
    alone: str | None = None


PARTS = (
    Part("machine", device.measure_device, 25),
    Part("training", device.measure_training, 120, "python -m train bench mnist --dtypes bfloat16"),
    Part("contenders", device.measure_side_by_side, 120, "python -m parity bench --dtype bfloat16"),
    Part("epoch", programs.measure_epoch, 35, "python -m train fit mnist --dtype bfloat16"),
    Part("routing", device.measure_routing, 30),
    Part("memory", device.measure_memory, 60, "python -m train bench mnist --predict-memory BYTES"),
    Part("parity", programs.measure_parity, 50, "python -m parity check"),
    Part("recipe", programs.measure_recipe, 100, "python -m train fit mnist"),
)
"""What matters most comes first, what can wait last."""


def report(
    plan: Plan,
    *,
    out: Path,
    data_dir: Path | None,
    minutes: float,
    arguments: Sequence[str],
    parts: Sequence[Part] = PARTS,
) -> int:
    """Measures parts of a plan, and writes `report.json` and `report.md` after each.

    The other arguments are those of the command `gpu-report`; those that it was given are in the
    report. The exit code is 0, or 1 if a part did not come to its end.
    """
    until = time.monotonic() + 60 * minutes
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(("python", "-m", "parity", *arguments)),
        "versions": describe_machine(PACKAGES),
        "plan": dataclasses.asdict(plan),
        "alone": {part.name: part.alone for part in parts if part.alone},
        "parts": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for number, part in enumerate(parts):
            left = until - RESERVE - time.monotonic()
            seconds = left * part.weight / sum(later.weight for later in parts[number:])
            print(f"{part.name}: up to {seconds:.0f} s", file=sys.stderr, flush=True)
            before = {name: done["found"] for name, done in found["parts"].items()}
            end = time.monotonic() + seconds
            _measure(part, Task(plan, data_dir, out, Path(scratch), before, end), found)
    print(markdown(found), end="")
    return int(any(done["failure"] for done in found["parts"].values()))


def _measure(part: Part, task: Task, found: dict[str, Any]) -> None:
    """Puts what a part finds under its name, and writes the report whenever there is more."""
    done: dict[str, Any] = {"failure": None, "found": {}, "seconds": 0.0}
    found["parts"][part.name] = done
    begun = time.monotonic()

    def write() -> None:
        done["seconds"] = time.monotonic() - begun
        with writing(task.out):
            write_json(task.out / "report.json", found)
            write_whole(task.out / "report.md", markdown(found).encode())

    try:
        with worker(with_compiled_programs, part.measure, task) as ask:
            for more in within(task.left(), ask):
                done["found"] |= finite(more)
                write()
    except (UserError, WorkerError) as error:
        done["failure"] = str(error)
        notes = getattr(error, "__notes__", [])
        print(*notes, f"{part.name} failed: {error}", sep="\n", file=sys.stderr, flush=True)
    write()
