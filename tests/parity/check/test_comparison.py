"""Errors by the rules of `parity.check.tolerance`."""

import math

import numpy as np
import pytest

from parity.check import tolerance
from parity.check.comparison import BINS, SMALLEST_EXPONENT, Comparison, error_between, worst_of
from parity.check.stages import Stage, computation_order


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


def test_limits_grow_with_the_reduction_up_to_a_ceiling():
    epsilon = np.finfo("float64").eps
    assert tolerance.limit("forward", "float64") == 4 * epsilon
    assert tolerance.limit("gradient", "float64", 100) == pytest.approx(160 * epsilon)
    assert tolerance.limit("forward", "float32", 20736) == 2e-6
    assert tolerance.limit("gradient", "float32", 20736) == 2e-5
    assert tolerance.limit("forward", "float64", 10**12) == 1e-12


def test_limits_of_training():
    assert tolerance.limit("training", "float32") == 2e-5
    assert tolerance.limit("training", "float64") == 1e-9


def test_a_comparison_without_limit_is_information():
    error = error_between(np.float32([1]), np.float32([2]))
    assert Comparison("tiny", "case", Stage("forward", "c1"), error, None).held
    assert not Comparison("tiny", "case", Stage("forward", "c1"), error, 1e-6).held


def test_order_of_computation():
    stages = [
        ("forward", "conv1"),
        ("forward", "u_hat"),
        ("forward", "b1"),
        ("forward", "v1"),
        ("forward", "b2"),
        ("forward", "b10"),
        ("forward", "lengths"),
        ("loss", "margin"),
        ("loss", "total"),
        ("gradient", "decoder.layers.2.kernel"),
        ("gradient", "decoder.layers.1.bias"),
        ("gradient", "class_caps.kernel"),
        ("gradient", "images"),
        ("Adam alone", "first moment after 1 step"),
        ("Adam alone", "parameters after 1 step"),
        ("Adam alone", "first moment after 20 steps"),
        ("training", "parameters after 20 steps"),
        ("training", "loss of 20 steps"),
    ]
    shuffled = sorted(stages)
    assert sorted(shuffled, key=lambda pair: computation_order(Stage(*pair))) == stages
