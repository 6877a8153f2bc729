"""The benchmark: rounds in which every contender has its turn, so that noise meets all alike."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.bench.contenders import Work
from parity.bench.worker import Ready, Worker
from train.system.machine import describe_machine

KINDS = ("train", "forward")


@dataclass
class Measured:
    """What was measured of one contender at one batch size.

    Attributes:
        contender: its name.
        batch_size: images in a step.
        ready: what its first step showed; None where it cannot run.
        rates: images a second of each round, for `"train"` and `"forward"`.
        peak_bytes: the most memory in use.
        failure: why it cannot run, or None.
    """

    contender: str
    batch_size: int
    ready: Ready | None = None
    rates: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    peak_bytes: int = 0
    failure: str | None = None


def measure(
    contenders: Sequence[str],
    works: Sequence[Work],
    *,
    repetitions: int,
    seconds: float,
    cores: int,
    note: Callable[[str], None],
) -> list[Measured]:
    """Measures every contender at every batch size.

    Args:
        contenders: their names.
        works: one for each batch size.
        repetitions: rounds; in each, every contender trains and infers once.
        seconds: about how long a turn is.
        cores: how many cores each may use.
        note: is told how far it is.
    """
    results = []
    for work in works:
        measured = [Measured(name, work.batch_size) for name in contenders]
        workers: dict[str, Worker] = {}
        try:
            for m in measured:  # one after the other: compilation is timed
                note(f"batch {work.batch_size}: {m.contender} does its first step")
                workers[m.contender] = Worker(m.contender, work, cores)
                try:
                    m.ready = workers[m.contender].ready()
                except RuntimeError as error:
                    m.failure = str(error)
                    note(f"{m.contender} cannot run: {m.failure}")
            running = [m for m in measured if m.failure is None]
            turns = _turns(running, workers, seconds)
            for repetition in range(repetitions if running else 0):
                note(f"batch {work.batch_size}: round {repetition + 1} of {repetitions}")
                # Whoever was first is last in the next round.
                for m in (
                    running[repetition % len(running) :] + running[: repetition % len(running)]
                ):
                    for kind in KINDS:
                        times = turns[m.contender, kind]
                        taken = workers[m.contender].time(kind, times)
                        m.rates[kind].append(times * work.batch_size / taken)
            for m in running:
                m.peak_bytes = workers[m.contender].peak_bytes()
        finally:
            for worker in workers.values():
                worker.close()
        results += measured
    return results


def _turns(
    running: Sequence[Measured], workers: dict[str, Worker], seconds: float
) -> dict[tuple[str, str], int]:
    """How often each contender repeats its work in a turn of so many seconds."""
    turns = {}
    for m in running:
        for kind in KINDS:
            once = workers[m.contender].time(kind, 1)
            turns[m.contender, kind] = max(1, round(seconds / once))
    return turns


def summarise(results: Sequence[Measured], baseline: str) -> list[dict[str, Any]]:
    """One row for each contender, batch size and kind of work.

    Args:
        results: of `measure`.
        baseline: the contender that ratios are to.

    Returns:
        Rows with `contender`, `batch_size`, `work`, median `images_per_second` and its `slowest`
        and `fastest` round, `ratio` (median, over rounds, of the rate over the baseline's in the
        same round, with its `ratio_low` and `ratio_high`; None where there is no baseline),
        `peak_bytes`, `first_step_seconds`, `rounds`, and `failure`.
    """
    rates = {(m.contender, m.batch_size): m.rates for m in results if m.failure is None}
    rows = []
    for m in results:
        for kind in KINDS:
            row: dict[str, Any] = {
                "contender": m.contender,
                "batch_size": m.batch_size,
                "work": kind,
                "failure": m.failure,
            }
            if m.failure is None:
                row |= _figures(m, kind, rates.get((baseline, m.batch_size)))
            rows.append(row)
    return rows


def _figures(m: Measured, kind: str, baseline: dict[str, list[float]] | None) -> dict[str, Any]:
    assert m.ready is not None
    rates = m.rates[kind]
    ratios = (
        [ours / theirs for ours, theirs in zip(rates, baseline[kind], strict=True)]
        if baseline
        else []
    )
    return {
        "images_per_second": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_low": min(ratios, default=None),
        "ratio_high": max(ratios, default=None),
        "peak_bytes": m.peak_bytes,
        "first_step_seconds": m.ready.first_step_seconds,
        "first_loss": m.ready.loss,
        "rounds": len(rates),
        "device": m.ready.device,
    }


def make_work(
    batch_size: int, *, dtype: str, iterations: int, sizes: Mapping[str, Any] | None = None
) -> Work:
    """The work of one batch size: the paper's network on the embedded digits, enlarged to 28x28.

    Args:
        batch_size: images in a step.
        dtype: of the computation.
        iterations: of the routing.
        sizes: arguments of the network that differ from the paper's.
    """
    from train.data import load_dataset, stored

    digits = stored(load_dataset("digits").train)
    chosen = np.arange(batch_size) % len(digits)
    small = digits.images[chosen]
    enlarged = small.repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(enlarged, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return Work(
        image_shape=images.shape[1:],
        num_classes=10,
        batch_size=batch_size,
        dtype=dtype,
        iterations=iterations,
        learning_rate=0.001,
        images=images,
        labels=digits.labels[chosen],
        sizes=sizes or {},
    )


def machine(cores: int) -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": cores, **describe_machine(("jax", "jaxlib", "flax", "torch"))}
