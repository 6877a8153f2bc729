"""What the report measures, at which sizes, and what a part of it is given."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.bench.timing import Rounds
from train.bench.worker import in_one_line
from train.config.fit_config import FitConfig
from train.presets import get_preset
from train.system.caches import VARIABLE, keep_compiled_programs

Found = dict[str, Any]
"""Plain values, for JSON."""

Measure = Callable[["Task"], Iterator[Found]]
"""Yields what it has found so far, which replaces what it found before."""


@dataclass(frozen=True)
class Plan:
    """The sizes of everything that is measured: by default those for an accelerator."""

    config: FitConfig = field(default_factory=lambda: get_preset("mnist"))  # the recipe
    dtype: str = "bfloat16"  # in which training is measured
    batch_sizes: Sequence[int] = (2048, 1024, 4096, 512, 8192, 256)  # the likeliest first
    # Who is timed beside capsjax at once; each group is a run of its own.
    contenders: Sequence[Sequence[str]] = (("torch-fast", "torch-reference"), ("torch-compile",))
    contender_parts: Sequence[int] = (1, 4)  # the fastest batch size is divided by each
    contender_sizes: Mapping[str, Any] = field(default_factory=dict)  # other than the paper's
    rounds: Rounds = field(default_factory=Rounds)  # of every timing
    routing: tuple[int, int, int, int] = (1152, 8, 10, 16)  # `capsjax.Sizes` of the layer
    routing_batch: int = 2048
    memory_batches: tuple[int, int] = (1024, 2048)  # memory is taken to be linear between them
    most_images: int = 2**18  # where the search for the largest batch ends
    parity_sizes: Sequence[str] = ("paper", "tiny")  # networks of `parity check`
    parity_cases: int | None = None  # of each that are compared at most; None for all
    probe_epochs: int = 4  # length of the runs that measure an epoch, at least 2
    fit_dtypes: Sequence[str] = ("bfloat16", "float32")  # in which the whole recipe is run

    def training(self, batch_size: int, implementation: str | None = None) -> FitConfig:
        """The recipe in `dtype` at another batch size; the library routes as it likes if None."""
        options = {**self.config.model.options, "routing_implementation": implementation}
        return self.config.changed(
            batch_size=batch_size, dtype=self.dtype, model_options=options, validation=0
        )


def tiny() -> Plan:
    """A dry run on a CPU: it has every part, and no figure that means anything."""
    small = {"conv_features": 4, "primary_types": 2, "decoder_hidden": [8]}
    digits = get_preset("digits")
    return Plan(
        config=digits.changed(
            model_options={**digits.model.options, **small}, batch_size=256, epochs=2
        ),
        batch_sizes=(16,),
        contenders=(("torch-fast", "torch-reference"),),
        contender_parts=(1,),
        contender_sizes=small,
        rounds=Rounds(2, 0.01),
        routing=(6, 4, 3, 4),
        routing_batch=2,
        memory_batches=(8, 16),
        most_images=32,
        parity_sizes=("tiny",),
        parity_cases=1,
        probe_epochs=2,
        fit_dtypes=("bfloat16",),
    )


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
