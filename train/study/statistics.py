"""Means of seeds and images, how far from them the truth may be, and what could be seen at all."""

import base64
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
UNLIKELY = 0.05
"""The p-value from which on a difference may well be one of chance."""
POWER = 0.8
"""The share of studies that see a difference of the size that is called visible."""

RESAMPLES = 2000


_NORMAL = np.linspace(-8, 8, 2001)
_WEIGHTS = stats.norm.pdf(_NORMAL) / stats.norm.pdf(_NORMAL).sum()
"""Values of a normal distribution, and how likely each is."""


class Estimate(NamedTuple):
    """A mean over networks and images, and how well it is known.

    What other seeds would change of it is known from a few seeds, and follows Student's
    distribution; what other images would change is known from many, and is normal. The two are
    added up as R. A. Fisher does for the problem of Behrens ("The Fiducial Argument in Statistical
    Inference", Annals of Eugenics 6, 1935): so a difference that is none is hardly ever called one
    more often than the confidence says, as it is with degrees of freedom by Welch and
    Satterthwaite, which are a guess from few seeds.
    """

    mean: float
    by_seeds: float  # the standard error that comes from the seeds
    by_images: float  # and from the images; infinite where the values do not tell
    freedom: float  # degrees of freedom of the first

    @property
    def error(self) -> float:
        """The standard error; infinite where the values do not tell."""
        return math.hypot(self.by_seeds, self.by_images)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; infinite where nothing is known."""
        return self._distance(1 - CONFIDENCE)

    @property
    def p_value(self) -> float:
        """How often a mean as far from zero comes by chance; 1 where nothing is known."""
        return self._beyond(abs(self.mean))

    @property
    def visible(self) -> float:
        """The true difference that would be told from zero in about `POWER` of such studies.

        With the interval as wide as here: that of another study is not, so that three seeds see it
        in 77 % of them, and two in 73 %, where the seeds decide.
        """
        return self.half_width + self._distance(2 * (1 - POWER))

    def _beyond(self, distance: float) -> float:
        """How often chance alone takes a mean farther than that from the truth, to either side."""
        if math.isinf(self.error):
            return 1.0
        if self.by_seeds == 0:
            return float(2 * stats.norm.sf(distance / self.by_images))
        left = distance - self.by_images * _NORMAL
        return float(2 * _WEIGHTS @ stats.t.sf(left / self.by_seeds, self.freedom))

    def _distance(self, share: float) -> float:
        """The distance that chance alone exceeds in such a share."""
        if math.isinf(self.error):
            return math.inf
        most = self.error * stats.t.ppf(1 - share / 4, self.freedom)
        return float(optimize.brentq(lambda distance: self._beyond(distance) - share, 0, most))


def estimate(values: np.ndarray) -> Estimate:
    """The mean of what networks of several seeds do, on the same images.

    Seeds and images are drawn anew together, each with replacement (`scipy.stats.bootstrap`), since
    other seeds and other test images would have given other values. A bootstrap of n seeds takes
    them for more alike than they are: their distance from the mean is enlarged by
    `sqrt(n / (n - 1))`. What the seeds' own means do not explain of the error is the images'.

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
        return Estimate(mean, math.inf, math.inf, 1)
    by_seeds = 0.0  # also of equal ones, of which the mean is rounded
    if not np.allclose(of_seed, of_seed[0], rtol=1e-12, atol=0):
        by_seeds = float(np.std(of_seed, ddof=1)) / math.sqrt(seeds)
    by_images = 0.0
    if images > 1:
        apart = (of_seed - mean) * (math.sqrt(seeds / (seeds - 1)) - 1)
        error = _bootstrap_error(values + apart[:, None])
        by_images = math.sqrt(max(error**2 - by_seeds**2, 0))
    if by_seeds == by_images == 0:
        by_images = math.inf
    return Estimate(mean, by_seeds, by_images, seeds - 1)


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
