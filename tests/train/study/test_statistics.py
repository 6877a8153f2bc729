import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.tolerance import assert_close
from train.study import statistics
from train.study.statistics import Estimate, estimate, holm, pack, spread, unpack


def test_of_seeds_alone_the_interval_is_students():
    values = [0.91, 0.93, 0.92, 0.95]
    scale = np.std(values, ddof=1) / math.sqrt(4)
    found = estimate(np.array(values))
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=scale)
    assert_close((found.mean - found.half_width, found.mean + found.half_width), expected)
    assert_close(found.p_value, stats.ttest_1samp(values, 0).pvalue)


def test_values_that_are_all_alike_do_not_tell_how_well_they_are_known():
    rounded = [0.1, 0.1, 0.1], 3 * [100 / 29]  # whose mean in floating point is another number
    for values in ([0.9], [0.5, 0.5, 0.5], *rounded, [[1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]):
        found = estimate(np.array(values))
        assert math.isinf(found.half_width)
        assert found.p_value == 1
    assert math.isnan(spread([0.9]))


def test_the_images_count_however_alike_the_seeds_are():
    wrong = np.zeros((3, 400))
    wrong[:, ::4] = 1  # every seed fails on the same quarter
    found = estimate(wrong)
    assert found.mean == 0.25
    of_sampling = math.sqrt(0.25 * 0.75 / 400)
    assert abs(found.error / of_sampling - 1) < 0.1  # of 2,000 resamples
    assert abs(found.half_width / (1.96 * found.error) - 1) < 0.01  # the images are many
    few = estimate(wrong[:, :40])
    assert few.error > 2.5 * found.error


@pytest.mark.parametrize(("seeds", "of_seeds"), [(2, 0.5), (3, 0.1), (5, 0.5)])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds, of_seeds, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    rng = np.random.default_rng(seeds)

    def study():
        return sum(
            deviation * rng.standard_normal(shape)
            for deviation, shape in ((of_seeds, (seeds, 1)), (1, (1, 100)), (1, (seeds, 100)))
        )

    found = [estimate(study()) for _ in range(200)]
    held = np.mean([abs(each.mean) < each.half_width for each in found])
    # 95 % of 200, within three deviations of the binomial distribution below, and not all of them.
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200) < held < 1
    assert all((each.p_value < 0.05) == (abs(each.mean) > each.half_width) for each in found)


@pytest.mark.parametrize(("seeds", "ratio"), [(2, 3), (2, 10), (3, 3), (3, 10)])
def test_few_seeds_that_differ_much_are_not_trusted_too_far(seeds, ratio):
    """Degrees of freedom by Welch and Satterthwaite call 7 to 13 % of these a difference."""
    rng = np.random.default_rng(seeds)
    means = rng.standard_normal(2000) * math.sqrt(ratio + 1)
    errors = np.sqrt(ratio * rng.chisquare(seeds - 1, 2000) / (seeds - 1))
    found = [Estimate(*each, 1, seeds - 1) for each in zip(means, errors, strict=True)]
    called = np.mean([each.p_value < 0.05 for each in found])
    assert 0.005 < called < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_difference_of_the_visible_size_is_seen_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = Estimate(0, 0.1, 0.2, 4)
    noise = 0.1 * rng.standard_t(4, 4000) + 0.2 * rng.standard_normal(4000)
    seen = np.mean(np.abs(truth.visible + noise) > truth.half_width)
    assert abs(seen - statistics.POWER) < 0.03
    assert abs(np.mean(np.abs(noise) > truth.half_width) - 0.05) < 0.011


def test_holms_correction_by_hand():
    assert_close(np.array(holm([0.01, 0.04, 0.03])), np.array([0.03, 0.06, 0.06]))
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_correction_makes_nothing_likelier_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    assert all(0 <= p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    assert np.all(np.diff(np.array(corrected)[np.argsort(p_values, kind="stable")]) >= 0)


@given(st.lists(st.booleans(), max_size=40))
def test_booleans_come_back_from_their_text(flags):
    assert unpack(pack(np.array(flags, bool)), len(flags)).tolist() == flags
