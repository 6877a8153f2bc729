import math

import numpy as np
import pytest
from scipy import stats

from train.study.statistics import (
    mean_interval,
    paired_difference,
    smallest_visible,
    spread,
)


def test_an_interval_is_that_of_students_t():
    values = [0.91, 0.93, 0.92, 0.95]
    expected = stats.t.interval(
        0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / math.sqrt(4)
    )
    interval = mean_interval(values)
    assert interval.mean - interval.half_width == pytest.approx(expected[0])
    assert interval.mean + interval.half_width == pytest.approx(expected[1])


def test_what_both_owe_to_the_seed_falls_out_of_a_difference():
    theirs = [0.5, 0.9, 0.7]
    ours = [x + d for x, d in zip(theirs, (0.010, 0.012, 0.011), strict=True)]
    paired = paired_difference(ours, theirs)
    assert paired.tells
    assert paired.mean == pytest.approx(0.011)
    assert paired.half_width == pytest.approx(0.001 * stats.t.ppf(0.975, 2) / math.sqrt(3))
    noisy = paired_difference([0.5, 0.9], [0.9, 0.5])
    assert not noisy.tells


def test_a_single_seed_tells_nothing():
    assert math.isnan(spread([0.9]))
    assert math.isinf(mean_interval([0.9]).half_width)
    assert not paired_difference([0.99], [0.1]).tells


def test_few_images_show_little_however_alike_the_seeds_are():
    few = smallest_visible([0.98, 0.98, 0.98], 359)
    assert few == pytest.approx(1.96 * math.sqrt(2 * 0.98 * 0.02 / 359))
    assert smallest_visible([0.98, 0.98, 0.98], 10_000) < few / 5
    assert smallest_visible([0.9, 0.98, 0.94], 10_000) > 0.05
