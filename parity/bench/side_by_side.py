"""Contenders at the same work: rounds in which each has its turn, so that noise meets all alike.

It imports no framework: a contender's process imports its own alone.
"""

import contextlib
import functools
import os
import statistics
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.bench.contenders import Maker
from parity.bench.work import Work
from train.bench.timing import Rounds, rates, repetitions_in, seconds_of
from train.bench.worker import Ask, WorkerError, worker
from train.system.errors import DoesNotFitError
from train.system.machine import process_peak_bytes

KINDS = ("train", "forward")
OURS = "capsjax"
"""The contender that the others are compared with."""

LONG, FEW = 2, 3
"""Where a step of a contender is so many times as long as a turn, and as that of the fastest, it
takes part in so few rounds: all would take most of the time, and tell no more."""


@dataclass
class Measured:
    """What was measured of one contender at some work, or why it cannot run.

    That is `found`: `device`, `note`, `first_step_seconds` with compilation, which is there by
    itself, too, as of `PREPARING`, where it is known, `first_loss`, `peak_bytes`; and the seconds
    of one repetition in each round, of "train" and "forward".
    """

    contender: str
    model: str
    dtype: str
    batch_size: int
    found: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    failure: str | None = None

    @property
    def point(self) -> dict[str, Any]:
        """What the contender was measured at."""
        return {"model": self.model, "dtype": self.dtype, "batch_size": self.batch_size}


def measure(
    contenders: Mapping[str, Maker], work: Work, *, rounds: Rounds, cores: int
) -> list[Measured]:
    """Measures contenders at some work on so many cores each, and tells how far it is.

    In each round every contender trains and infers for a turn, which is as long as `rounds` says,
    but for those that take part in `FEW`.
    """
    measured = [Measured(name, work.model, work.dtype, work.batch_size) for name in contenders]
    running: list[tuple[Measured, Ask, dict[str, int]]] = []
    with contextlib.ExitStack() as workers:
        for m in measured:  # one after the other: compilation is timed
            _note(work, f"{m.contender} does its first step")
            ask = workers.enter_context(worker(_serve, contenders[m.contender], work, cores))
            try:
                m.found = ask()
                running.append((m, ask, {}))
            except (WorkerError, DoesNotFitError) as error:
                m.failure = str(error)
                _note(work, f"{m.contender} cannot run: {m.failure}")
        steps: dict[str, float] = {}
        for m, ask, times in running:
            for kind in KINDS:
                turn = functools.partial(_turn, ask, kind)
                once = turn(1)
                is_long = once > LONG * rounds.seconds
                times[kind] = 1 if is_long else repetitions_in(rounds.seconds, turn)
                steps.setdefault(m.contender, once)
        bearable = LONG * max(rounds.seconds, min(steps.values(), default=0.0))
        for number in range(rounds.repetitions if running else 0):
            _note(work, f"round {number + 1} of {rounds.repetitions}")
            first = number % len(running)  # whoever was first is last in the next round
            for m, ask, times in running[first:] + running[:first]:
                if number >= FEW and steps[m.contender] > bearable:
                    continue
                for kind in KINDS:
                    m.seconds[kind].append(_turn(ask, kind, times[kind]) / times[kind])
        for m, ask, _ in running:
            m.found["peak_bytes"] = ask(("peak", 0))
    return measured


def _turn(ask: Ask, kind: str, times: int) -> float:
    return ask((kind, times))


def _note(work: Work, text: str) -> None:
    point = f"{work.model}, {work.dtype}, batch {work.batch_size}"
    print(f"{point}: {text}", file=sys.stderr, flush=True)


def _serve(make: Maker, work: Work, cores: int) -> Generator[Any, tuple[str, int], None]:
    """Answers for a contender in a process of its own, on a given number of cores.

    First with what it finds at its first step; then to `("peak", 0)` with the most memory in use,
    of the accelerator or of the process on a CPU, and to `("train", times)` and `("forward",
    times)` with the seconds that these take in a row. One more before several does not count:
    whoever begins after the turns of others is slow at first, which one as long as a turn bears.
    """
    stay_on(cores)
    # The contenders share the device, on which JAX would take most of the memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    contender = make(work)
    losses: list[float] = []
    seconds = seconds_of(lambda times: losses.append(contender.train(times)), 1)
    contender.forward(1)
    answer: Any = {"device": contender.device, "note": contender.note, "first_loss": losses[0]}
    answer |= {"first_step_seconds": seconds + sum(contender.prepared.values())}
    answer |= contender.prepared
    while True:
        what, times = yield answer
        if what == "peak":
            answer = contender.peak_bytes() or process_peak_bytes()
        else:
            run = contender.train if what == "train" else contender.forward
            if times > 1:
                run(1)
            answer = seconds_of(run, times)


def stay_on(cores: int) -> None:
    """Keeps this process, and what it computes in PyTorch, on the first so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    os.environ["OMP_NUM_THREADS"] = str(cores)


def summarise(results: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row for each contender, point and kind of work.

    They have `contender`, `model`, `dtype`, `batch_size`, `work`, `failure`, and, where that is
    None, the `rates`, what was `found`, `rounds`, and `ratio` (median, over rounds, of the rate of
    `OURS` over this one in the same round, with its `ratio_low` and `ratio_high`; None where the
    former did not run).
    """
    ours = {tuple(m.point.values()): m for m in results if m.contender == OURS and not m.failure}
    rows = []
    for m in results:
        found = ours.get(tuple(m.point.values()))
        for kind, seconds in m.seconds.items():
            row = {"contender": m.contender, **m.point, "work": kind, "failure": m.failure}
            if m.failure is None:
                of_ours = found.seconds[kind] if found else ()
                ratios = [b / a for a, b in zip(of_ours, seconds, strict=False)]
                row |= {**rates(m.batch_size, seconds), **m.found, "rounds": len(seconds)}
                row["ratio"] = statistics.median(ratios) if ratios else None
                row["ratio_low"] = min(ratios, default=None)
                row["ratio_high"] = max(ratios, default=None)
            rows.append(row)
    return rows
