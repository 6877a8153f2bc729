"""The error of one array against another, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parity.check.stages import Stage

SMALLEST_EXPONENT = -64
"""Relative errors below 2**-64 fall into one bin of the histogram, the first."""
BINS = -SMALLEST_EXPONENT + 1
SAMPLE = 2**20


@dataclass(frozen=True, eq=False)
class Error:
    """How far an array is from the one that it should be.

    Attributes:
        shape: of the array.
        absolute: the largest difference; infinite where shapes differ or a value is not finite.
        relative: that by the largest magnitude of the expected array.
        histogram: int64 `[BINS]`: element errors by powers of two, of a large array those of
            elements at equal distances, a million at least. Bin 0 counts the errors up to
            `2**SMALLEST_EXPONENT` times that magnitude, bin `BINS - 1` those above one half.
        note: what is not a matter of size, or which of several arrays is the worst.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float
    histogram: np.ndarray
    note: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The error of a stage in one case, and its limit.

    Attributes:
        network: the network's size.
        case: iterations, batch and images.
        stage: what was compared.
        error: how far capsjax is from the reference.
        limit: the largest relative error that is accepted; None where the error is information.
    """

    network: str
    case: str
    stage: Stage
    error: Error
    limit: float | None

    @property
    def held(self) -> bool:
        """Whether the error is within the limit."""
        return self.limit is None or self.error.relative <= self.limit

    @property
    def share(self) -> float:
        """The error as a share of its limit; more than 1 where it is not held."""
        if self.limit is None or self.error.relative == 0:
            return 0.0
        return self.error.relative / self.limit


def error_between(actual: np.ndarray, expected: np.ndarray) -> Error:
    """The error of an array, by the rules of `parity.check.tolerance`.

    Args:
        actual: what capsjax computed; any shape and floating dtype.
        expected: what the reference computed.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
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


def missing(name: str) -> Error:
    """The error of a stage that one network does not have."""
    return _infinite((), f"{name} has no such stage")


def worst_of(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Error:
    """The largest error of several arrays, each relative to itself; the note names which."""
    errors = {name: error_between(actual[name], expected[name]) for name in expected}
    name = max(errors, key=lambda name: errors[name].relative)
    worst = errors[name]
    note = f"{name}: {worst.note}" if worst.note else name
    histogram = np.sum([error.histogram for error in errors.values()], axis=0)
    return Error(worst.shape, worst.absolute, worst.relative, histogram, note)


def _infinite(shape: tuple[int, ...], note: str, absolute: float = float("inf")) -> Error:
    return Error(shape, absolute, float("inf"), np.zeros(BINS, np.int64), note)


def _histogram(relative: np.ndarray) -> np.ndarray:
    relative = relative.ravel()[:: max(1, relative.size // SAMPLE)]
    _, exponents = np.frexp(relative)  # x = m * 2**e with 1/2 <= m < 1
    bins = np.where(relative == 0, 0, np.clip(exponents - SMALLEST_EXPONENT, 0, BINS - 1))
    return np.bincount(bins, minlength=BINS)
