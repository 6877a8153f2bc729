"""Errors by the rules of `parity.check.tolerance`."""

import math

import numpy as np
import pytest

from parity.check.comparison import (
    BINS,
    SMALLEST_EXPONENT,
    Comparison,
    Result,
    Stage,
    error_between,
    worst_of,
)


def test_error_is_relative_to_the_largest_magnitude():
    error = error_between(np.float32([1, 2, -3.5]), np.float32([1, 2, -4]))
    assert (error.absolute, error.relative) == (0.5, 0.125)
    assert error.shape == (3,)
    assert error.histogram[0] == 2
    # 2**-3 lies in the bin of 2**-3 <= x < 2**-2
    assert error.histogram[-2 - SMALLEST_EXPONENT] == 1
    assert error.histogram.sum() == 3
    assert len(error.histogram) == BINS


def test_a_difference_below_the_smallest_normal_number_is_none():
    assert error_between(np.float32([0.0]), np.float32([1e-39])).relative == 0
    assert error_between(np.float32([0.0]), np.float32([2e-38])).relative == 1
    assert error_between(np.float64([0.0]), np.float64([1e-39])).relative == 1


def test_zero_is_exact():
    error = error_between(np.float32([1e-30]), np.float32([0.0]))
    assert error.relative == math.inf
    assert error.absolute == np.float32(1e-30)
    assert error.note == "the reference is zero"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_agrees(value: float):
    same = np.float32([value])
    assert error_between(same, same).relative == math.inf
    assert "reference" in error_between(np.float32([1]), same).note
    assert "capsjax" in error_between(same, np.float32([1])).note


def test_shapes_must_be_the_same():
    error = error_between(np.zeros((2, 1), np.float32), np.zeros(2, np.float32))
    assert error.relative == math.inf
    assert "[2, 1]" in error.note


def test_empty_arrays_and_scalars_agree():
    assert error_between(np.zeros((0, 2)), np.zeros((0, 2))).relative == 0
    assert error_between(np.float32(2), np.float32(2)).relative == 0


def test_worst_of_names_the_array():
    actual = {"a": np.float32([1, 1]), "b": np.float32([2])}
    expected = {"a": np.float32([1, 2]), "b": np.float32([2])}
    error = worst_of(actual, expected)
    assert (error.note, error.relative) == ("a", 0.5)
    assert error.histogram.sum() == 3


def test_a_comparison_without_limit_is_information():
    error = error_between(np.float32([1]), np.float32([2]))
    assert Comparison(Stage("forward", "c1"), error, None).held
    assert not Comparison(Stage("forward", "c1"), error, 1e-6).held


def test_stages_of_several_cases_are_in_the_order_of_computation():
    """Each case has its stages in order: a case with more of them has them in between."""
    orders = {
        ("tiny", "1 iteration"): ["conv1", "v1", "lengths", "total"],
        ("tiny", "3 iterations"): ["conv1", "v1", "v2", "v3", "lengths", "total", "gradient"],
        ("tiny", "2 iterations"): ["conv1", "v1", "v2", "lengths", "mask", "total"],
        ("tiny", "training"): ["moment", "parameters"],
        ("paper", "5 iterations"): ["conv1", "v1", "v2", "v3", "v4", "lengths", "total"],
    }
    right, wrong = (error_between(np.float32([x]), np.float32([1])) for x in (1, 2))
    result = Result("reference", "float32", "digits", 0)
    for (size, case), names in orders.items():
        for name in names:
            error = wrong if (size, name) in (("tiny", "moment"), ("paper", "v4")) else right
            result.comparisons.append(Comparison(Stage("", name), error, 1e-6, size, case))
    shown = [(comparison.size, comparison.stage.name) for comparison in result.worst()]
    tiny = "conv1 v1 v2 v3 lengths mask total gradient moment parameters"
    assert shown == [
        *(("tiny", name) for name in tiny.split()),
        *(("paper", name) for name in ["conv1", "v1", "v2", "v3", "v4", "lengths", "total"]),
    ]
    assert result.first_difference is not None
    assert (result.first_difference.size, result.first_difference.stage.name) == ("paper", "v4")
