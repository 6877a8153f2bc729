import math

import numpy as np
from scipy import stats

from tests.tolerance import assert_close
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
    ends = (interval.mean - interval.half_width, interval.mean + interval.half_width)
    assert_close(ends, expected)


def test_what_both_owe_to_the_seed_falls_out_of_a_difference():
    theirs = [0.5, 0.875, 0.75]
    ours = [x + d / 256 for x, d in zip(theirs, (7, 9, 8), strict=True)]
    paired = paired_difference(ours, theirs)
    assert paired.excludes_zero
    assert paired.mean == 8 / 256
    assert_close(paired.half_width, stats.t.ppf(0.975, 2) / 256 / math.sqrt(3))
    noisy = paired_difference([0.5, 0.9], [0.9, 0.5])
    assert not noisy.excludes_zero


def test_a_single_seed_shows_nothing():
    assert math.isnan(spread([0.9]))
    assert math.isinf(mean_interval([0.9]).half_width)
    assert not paired_difference([0.99], [0.1]).excludes_zero


def test_few_images_show_little_however_alike_the_seeds_are():
    few = smallest_visible([0.75, 0.75, 0.75], 359)
    assert_close(few, 1.96 * math.sqrt(2 * 0.75 * 0.25 / 359))
    assert smallest_visible([0.75, 0.75, 0.75], 10_000) < few / 5
    assert smallest_visible([0.9, 0.98, 0.94], 10_000) > 0.05
