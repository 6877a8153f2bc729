"""Means, spreads, and whether a difference means something."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and how far from it the truth may be, with 95 % confidence.

    Attributes:
        mean: of the values.
        half_width: of the interval; infinite for a single value.
    """

    mean: float
    half_width: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the mean is known."""
        return abs(self.mean) > self.half_width


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a population of which these values are a sample; NaN for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's interval for the mean of a normal distribution that the values come from."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.inf)
    return Interval(mean, _quantile(len(values) - 1) * spread(values) / math.sqrt(len(values)))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean of `ours - theirs`, value by value, which leaves out what both owe to the seed."""
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])


def smallest_visible(values: Sequence[float], examples: int) -> float:
    """The least difference of accuracy that a comparison of this size can show.

    The larger of two: the interval of a difference of two means with the spread of these values,
    and an error of sampling the test images.

    Args:
        values: accuracies of one cell, a seed each.
        examples: test images.
    """
    p, n = float(np.mean(values)), len(values)
    of_images = 1.96 * math.sqrt(2 * max(p * (1 - p), 1 / examples) / examples)
    if n < 2:
        return of_images
    return max(of_images, _quantile(2 * n - 2) * spread(values) * math.sqrt(2 / n))


def _quantile(freedom: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
