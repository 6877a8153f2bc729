"""A part of the report: what it is given, and how it tells what it finds."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.bench.gpu.plan import Plan
from train.bench.worker import in_one_line
from train.system.caches import VARIABLE, keep_compiled_programs

Found = dict[str, Any]
"""Plain values, for JSON."""

Measure = Callable[["Task"], Iterator[Found]]
"""Yields what it has found so far, which replaces what it found before."""


@dataclass(frozen=True)
class Task:
    """What a part of the report is given.

    `data_dir` may have the official files of the data set, `out` is the report's folder, `scratch`
    one that is deleted after it. `found` is what the parts before have found, by their names, and
    `until`, by `time.monotonic()`, when the part is stopped.
    """

    plan: Plan
    data_dir: Path | None
    out: Path
    scratch: Path
    found: Mapping[str, Found]
    until: float

    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.until - time.monotonic()

    @property
    def best_batch(self) -> int:
        """Of the batch sizes whose training was measured the fastest; the first if none was."""
        best = fastest(self.found.get("training", {}).get("rows", []))
        return self.plan.batch_sizes[0] if best is None else best["batch_size"]


def fastest(rows: list[Found]) -> Found | None:
    """The row with the most images a second; None where all failed."""
    ran = [row for row in rows if row["failure"] is None]
    return max(ran, key=lambda row: row["images_per_second"], default=None)


def with_compiled_programs(measure: Measure, task: Task) -> Generator[Found, None, None]:
    """Does a part, with JAX's persistent compilation cache for it and all that it starts."""
    folder = keep_compiled_programs()
    os.environ[VARIABLE] = "" if folder is None else str(folder)
    yield from measure(task)


def attempt(measure: Callable[..., Found], *arguments: Any) -> Found:
    """What is measured with `failure` None, or why it could not be, under `failure`."""
    try:
        return {"failure": None, **measure(*arguments)}
    except Exception as error:  # whatever a framework raises where it cannot: the others go on
        return {"failure": in_one_line(error)}
