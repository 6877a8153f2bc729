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

import numpy as np

from parity.bench.contenders import CONTENDERS, Work
from train.bench.timing import Rounds, rates, repetitions_in, seconds_of
from train.bench.worker import Ask, WorkerError, worker
from train.system.errors import DoesNotFitError
from train.system.machine import process_peak_bytes

KINDS = ("train", "forward")


@dataclass
class Measured:
    """What was measured of one contender at one batch size, or why it cannot run.

    That is `found`: `device`, `first_step_seconds` (compilation included), `first_loss`,
    `peak_bytes`; and the seconds of one repetition in each round, of "train" and "forward".
    """

    contender: str
    batch_size: int
    found: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    failure: str | None = None


def measure(contenders: Sequence[str], work: Work, *, rounds: Rounds, cores: int) -> list[Measured]:
    """Measures contenders at some work on so many cores each, and tells how far it is.

    In each round every contender trains and infers for a turn, which is as long as `rounds` says.
    """
    measured = [Measured(name, work.batch_size) for name in contenders]
    running: list[tuple[Measured, Ask, dict[str, int]]] = []
    with contextlib.ExitStack() as workers:
        for m in measured:  # one after the other: compilation is timed
            _note(work, f"{m.contender} does its first step")
            ask = workers.enter_context(worker(_serve, m.contender, work, cores))
            try:
                m.found = ask()
                running.append((m, ask, {}))
            except (WorkerError, DoesNotFitError) as error:
                m.failure = str(error)
                _note(work, f"{m.contender} cannot run: {m.failure}")
        for _, ask, times in running:
            for kind in KINDS:
                turn = functools.partial(_turn, ask, kind)
                times[kind] = repetitions_in(rounds.seconds, turn)
        for number in range(rounds.repetitions if running else 0):
            _note(work, f"round {number + 1} of {rounds.repetitions}")
            first = number % len(running)  # whoever was first is last in the next round
            for m, ask, times in running[first:] + running[:first]:
                for kind in KINDS:
                    m.seconds[kind].append(_turn(ask, kind, times[kind]) / times[kind])
        for m, ask, _ in running:
            m.found["peak_bytes"] = ask(("peak", 0))
    return measured


def _turn(ask: Ask, kind: str, times: int) -> float:
    return ask((kind, times))


def _note(work: Work, text: str) -> None:
    print(f"batch {work.batch_size}: {text}", file=sys.stderr, flush=True)


def _serve(name: str, work: Work, cores: int) -> Generator[Any, tuple[str, int], None]:
    """Answers for a contender in a process of its own, on a given number of cores.

    First with what it finds at its first step; then to `("peak", 0)` with the most memory in use,
    of the accelerator or of the process on a CPU, and to `("train", times)` and `("forward",
    times)` with the seconds that these take in a row. One more before that does not count: whoever
    begins after the turns of others is slow at first.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    os.environ["OMP_NUM_THREADS"] = str(cores)
    # The contenders share the device, on which JAX would take most of the memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    contender = CONTENDERS[name](work)
    losses: list[float] = []
    seconds = seconds_of(lambda times: losses.append(contender.train(times)), 1)
    contender.forward(1)
    answer: Any = {"device": contender.device, "first_loss": losses[0]}
    answer |= {"first_step_seconds": seconds}
    while True:
        what, times = yield answer
        if what == "peak":
            answer = contender.peak_bytes() or process_peak_bytes()
        else:
            run = contender.train if what == "train" else contender.forward
            run(1)
            answer = seconds_of(run, times)


def summarise(results: Sequence[Measured], baseline: str) -> list[dict[str, Any]]:
    """One row for each contender, batch size and kind of work.

    They have `contender`, `batch_size`, `work`, `failure`, and, where that is None, the `rates`,
    what was `found`, `rounds`, and `ratio` (median, over rounds, of the rate over the baseline's in
    the same round, with its `ratio_low` and `ratio_high`; None where there is no baseline).
    """
    seconds = {(m.contender, m.batch_size): m.seconds for m in results if m.failure is None}
    rows = []
    for m in results:
        theirs = seconds.get((baseline, m.batch_size), {})
        for kind, ours in m.seconds.items():
            row = {"contender": m.contender, "batch_size": m.batch_size, "work": kind}
            row |= {"failure": m.failure}
            if m.failure is None:
                ratios = [b / a for a, b in zip(ours, theirs.get(kind, ()), strict=False)]
                row |= {**rates(m.batch_size, ours), **m.found, "rounds": len(ours)}
                row["ratio"] = statistics.median(ratios) if ratios else None
                row["ratio_low"] = min(ratios, default=None)
                row["ratio_high"] = max(ratios, default=None)
            rows.append(row)
    return rows


def make_work(
    batch_size: int, *, dtype: str, iterations: int, sizes: Mapping[str, Any] | None = None
) -> Work:
    """The work of one batch size: the paper's network on the embedded digits, enlarged to 28x28."""
    from train.data import load_dataset, stored

    digits = stored(load_dataset("digits").train)
    chosen = np.arange(batch_size) % len(digits)
    enlarged = digits.images[chosen].repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(enlarged, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return Work(dtype, iterations, images, digits.labels[chosen], sizes or {})
