"""The timer of all benchmarks, and the straight line through what it found."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

NO_END = 10**9
"""More steps than are ever taken."""


@dataclass(frozen=True)
class Rounds:
    """How often something is timed, and about how long each time."""

    repetitions: int = 5
    seconds: float = 0.5

    @property
    def short(self) -> "Rounds":
        """As many rounds, a quarter as long: of parts of a step, or where the fastest counts."""
        return dataclasses.replace(self, seconds=self.seconds / 4)


def time_rounds(run: Callable[[int], object], rounds: Rounds) -> list[float]:
    """Seconds that one repetition takes, a value for each round.

    `run` repeats the work a number of times and waits for the last. It is called once before
    anything counts, so that nothing is left to compile.
    """
    run(1)
    times = repetitions_in(rounds.seconds, partial(seconds_of, run))
    return [seconds_of(run, times) / times for _ in range(rounds.repetitions)]


def seconds_of(run: Callable[[int], object], times: int) -> float:
    """Seconds that so many repetitions take."""
    begun = time.perf_counter()
    run(times)
    return time.perf_counter() - begun


def repetitions_in(seconds: float, take: Callable[[int], float]) -> int:
    """How many repetitions fill so many seconds, where `take` returns those of any number."""
    times = max(1, round(seconds / max(take(1), 1e-9)))
    # A first repetition alone is slower than many in a row: where that matters, count again.
    if times > 10:
        times = max(1, round(seconds / (take(times // 5) / (times // 5))))
    return times


def rates(images: int, seconds: Sequence[float]) -> dict[str, float]:
    """`images_per_second` in the median, the `slowest` and the `fastest` round.

    A repetition has so many images, and took so many seconds in each round.
    """
    return {
        "images_per_second": images / statistics.median(seconds),
        "slowest": images / max(seconds),
        "fastest": images / min(seconds),
    }


@dataclass(frozen=True)
class Line:
    """A straight line: its value at nothing, and what each more adds.

    `off_by` is the largest relative distance from it of the values that it was drawn through.
    """

    fixed: float
    each: float
    off_by: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through positive values `y` with the least relative distances (squared)."""
    values = np.array(y, float)
    each, fixed = np.polyfit(np.array(x, float), values, 1, w=1 / values)
    off = np.abs(fixed + each * np.array(x) - values) / values
    return Line(float(fixed), float(each), float(off.max()))
