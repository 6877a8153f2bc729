"""The error of one array against another, and the errors that a check has found."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FORWARD, LOSS, GRADIENT, TEST = "forward", "loss", "gradient", "in test"
ADAM, TRAINING = "Adam alone", "training"
"""The groups of stages."""

SMALLEST_EXPONENT = -64
"""Relative errors below 2**-64 fall into one bin of the histogram, the first."""
BINS = -SMALLEST_EXPONENT + 1
SAMPLE = 2**20


class Stage(NamedTuple):
    """An array that both networks compute: an intermediate, loss term or parameter of a group."""

    group: str
    name: str

    def __str__(self) -> str:
        """`forward: v1`."""
        return f"{self.group}: {self.name}"


class Error(NamedTuple):
    """The distance of an array from the one that it should be.

    That is the largest difference, infinite where shapes differ or a value is not finite, and that
    relative to the largest magnitude of the expected array. The histogram, int64 `[BINS]`, counts
    element errors by powers of two, of a large array those of elements at equal distances, a
    million at least: bin 0 those up to `2**SMALLEST_EXPONENT` times that magnitude, bin `BINS - 1`
    those above one half. A note tells what is no matter of size, or which of several arrays it is.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float
    histogram: np.ndarray
    note: str = ""


class Comparison(NamedTuple):
    """The error of a stage of capsjax from the reference's, for networks of a size in one case.

    The limit is the largest relative error that is accepted, None where the error is information.
    """

    stage: Stage
    error: Error
    limit: float | None
    size: str = ""
    case: str = ""

    @property
    def held(self) -> bool:
        """Whether the error is within the limit."""
        return self.limit is None or self.error.relative <= self.limit

    @property
    def share(self) -> float:
        """The error as a share of its limit; more than 1 where it is not held."""
        return 0.0 if self.limit is None else self.error.relative / self.limit


class Growth(NamedTuple):
    """The relative errors of a training after each of some steps, by what is compared.

    Those of the reference are its own in float32, against itself in float64; there are none where
    the check runs in float64.
    """

    case: str
    steps: list[int]
    errors: dict[str, list[float]]
    reference_against_float64: dict[str, list[float]]


@dataclass
class Result:
    """The errors that a check of a subject has found."""

    name: str  # of the subject
    dtype: str  # of the computation
    dataset: str  # of the ordinary images
    seed: int  # of weights and images
    # One for each stage of each case, in the order of the computation.
    comparisons: list[Comparison] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)  # one for each training
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every error is within its limit."""
        return all(comparison.held for comparison in self.comparisons)

    @property
    def limited(self) -> list[Comparison]:
        """Those that have a limit; the others are information."""
        return [comparison for comparison in self.comparisons if comparison.limit is not None]

    @property
    def first_difference(self) -> Comparison | None:
        """Of the comparisons that failed, the one whose stage is computed first."""
        places = self._places()
        failed = [comparison for comparison in self.comparisons if not comparison.held]
        return min(failed, key=lambda c: places[c.stage], default=None)

    def worst(self) -> list[Comparison]:
        """For each stage of each size its largest error, in order of computation."""
        worst: dict[tuple[str, Stage], Comparison] = {}
        for new in self.comparisons:
            old = worst.setdefault((new.size, new.stage), new)
            if (new.share, new.error.relative) > (old.share, old.error.relative):
                worst[new.size, new.stage] = new
        places = self._places()
        sizes = list(dict.fromkeys(comparison.size for comparison in self.comparisons))
        return sorted(worst.values(), key=lambda c: (sizes.index(c.size), places[c.stage]))

    def _places(self) -> dict[Stage, int]:
        """The place of each stage in the computation; every case has its own in their order."""
        order: list[Stage] = []
        for _, of_case in itertools.groupby(self.comparisons, lambda c: (c.size, c.case)):
            place = len(order)
            for comparison in of_case:
                if comparison.stage not in order:
                    order.insert(place, comparison.stage)
                place = order.index(comparison.stage) + 1
        return {stage: place for place, stage in enumerate(order)}


def error_between(actual: np.ndarray | None, expected: np.ndarray | None) -> Error:
    """The error of an array of capsjax from the reference's, see `parity.check.tolerance`.

    Any shapes and floating dtypes; None where one has no such stage.
    """
    if actual is None or expected is None:
        name = "capsjax" if actual is None else "the reference"
        return _infinite((), f"{name} has no such stage")
    if actual.shape != expected.shape:
        return _infinite(expected.shape, f"capsjax has the shape {list(actual.shape)}")
    tiny = float(np.finfo(expected.dtype).tiny)
    wide, truth = actual.astype(np.float64), expected.astype(np.float64)
    for name, array in (("capsjax", wide), ("the reference", truth)):
        if not np.isfinite(array).all():
            return _infinite(expected.shape, f"{name} has values that are not finite")
    difference = np.abs(wide - truth)
    difference = np.where(difference <= tiny, 0, difference)
    scale = float(np.abs(truth).max(initial=0.0))
    absolute = float(difference.max(initial=0.0))
    if absolute == 0:
        return Error(expected.shape, 0.0, 0.0, _histogram(difference))
    if scale == 0:
        return _infinite(expected.shape, "the reference is zero", absolute)
    return Error(expected.shape, absolute, absolute / scale, _histogram(difference / scale))


def worst_of(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Error:
    """The largest error of several arrays, each relative to itself; the note names which."""
    errors = {name: error_between(actual[name], expected[name]) for name in expected}
    name = max(errors, key=lambda name: errors[name].relative)
    worst = errors[name]
    note = f"{name}: {worst.note}" if worst.note else name
    histogram = np.sum([error.histogram for error in errors.values()], axis=0)
    return worst._replace(histogram=histogram, note=note)


def _infinite(shape: tuple[int, ...], note: str, absolute: float = float("inf")) -> Error:
    return Error(shape, absolute, float("inf"), np.zeros(BINS, np.int64), note)


def _histogram(relative: np.ndarray) -> np.ndarray:
    relative = relative.ravel()[:: max(1, relative.size // SAMPLE)]
    _, exponents = np.frexp(relative)  # x = m * 2**e with 1/2 <= m < 1
    bins = np.where(relative == 0, 0, np.clip(exponents - SMALLEST_EXPONENT, 0, BINS - 1))
    return np.bincount(bins, minlength=BINS)
