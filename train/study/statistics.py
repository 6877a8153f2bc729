"""Means of seeds and images, how far from them the truth may be, and what could be seen at all."""

import base64
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
UNLIKELY = 0.05
"""The p-value from which on a difference may well be one of chance."""
POWER = 0.8
"""The share of studies that see a difference of the size that is called visible."""

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean over networks and images, and how well it is known."""

    mean: float
    error: float  # its standard error; infinite where the values do not tell
    freedom: float  # degrees of freedom of that error

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval, Student's; infinite where nothing is known."""
        return float(self.error * stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom))

    @property
    def p_value(self) -> float:
        """How often a mean as far from zero comes by chance; 1 where nothing is known."""
        if math.isinf(self.error):
            return 1.0
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

    @property
    def visible(self) -> float:
        """The true difference that would be told from zero in a share `POWER` of such studies."""
        return float(self.half_width + self.error * stats.t.ppf(POWER, self.freedom))


def estimate(values: np.ndarray) -> Estimate:
    """The mean of what networks of several seeds do, on the same images.

    Seeds and images are drawn anew together, each with replacement (`scipy.stats.bootstrap`), since
    other seeds and other test images would have given other values. A bootstrap of n seeds takes
    them for more alike than they are: their distance from the mean is enlarged by
    `sqrt(n / (n - 1))`, and the interval is Student's, with the degrees of freedom of both sources
    by Welch and Satterthwaite.

    The values are `[seeds, images]`, or `[seeds]` where a value is not one of images; for a
    difference of two kinds of networks, that of the same seeds and images. The error is infinite
    for a single seed, and for values that are all alike: they do not tell how far apart others
    would be.
    """
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    seeds, images = values.shape
    mean, of_seed = float(values.mean()), values.mean(axis=1)
    if seeds < 2 or math.isnan(mean):
        return Estimate(mean, math.inf, 1)
    by_seeds = float(np.var(of_seed, ddof=1)) / seeds
    if images == 1:
        error, freedom = math.sqrt(by_seeds), seeds - 1.0
    else:
        apart = (of_seed - mean) * (math.sqrt(seeds / (seeds - 1)) - 1)
        error = _bootstrap_error(values + apart[:, None])
        by_images = max(error**2 - by_seeds, 0.0)
        shares = by_seeds**2 / (seeds - 1) + by_images**2 / (images - 1)
        freedom = error**4 / shares if shares else 1.0
    return Estimate(mean, error, freedom) if error else Estimate(mean, math.inf, 1)


def spread(values: Sequence[float]) -> float:
    """The standard deviation of a population of which these values are a sample; NaN for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, so that all together err in a share as small.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979: the smallest counts as many times as there are comparisons, the next once
    less, and none is less than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    times = np.arange(len(order), 0, -1)
    adjusted = np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * times)
    result = np.empty(len(order))
    result[order] = np.minimum(adjusted, 1)
    return result.tolist()


def pack(flags: np.ndarray) -> str:
    """Booleans `[n]` as text, eight in a byte, for JSON."""
    return base64.b64encode(np.packbits(np.asarray(flags, bool)).tobytes()).decode("ascii")


def unpack(text: str, count: int) -> np.ndarray:
    """The booleans `[count]` of a text that `pack` has made."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def _bootstrap_error(values: np.ndarray) -> float:
    """The standard error of the mean when seeds and images are drawn anew, of `[seeds, images]`."""

    def mean(seeds: np.ndarray, images: np.ndarray) -> float:
        weights = np.bincount(images, minlength=values.shape[1])
        return float((values[seeds].mean(axis=0) @ weights) / len(images))

    drawn = stats.bootstrap(
        tuple(map(np.arange, values.shape)),
        mean,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(drawn.standard_error)
