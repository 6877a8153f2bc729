import jax.numpy as jnp
import numpy as np
import pytest

from parity.check.tolerance import MACHINE_EPSILONS, limit
from tests.tolerance import assert_close, limits


@pytest.mark.parametrize("dtype", MACHINE_EPSILONS)
def test_base_is_eight_machine_epsilons(dtype):
    assert limits(dtype) == 8 * float(jnp.finfo(dtype).eps)


def test_limit_grows_with_the_square_root_of_the_reduction_length():
    assert limits(jnp.float32, 400) == 20 * limits(jnp.float32)


def test_limits_of_parity_grow_with_the_reduction_up_to_a_ceiling():
    epsilon = np.finfo("float64").eps
    assert limit("forward", "float64") == 4 * epsilon
    assert limit("gradient", "float64", 100) == 160 * epsilon
    assert limit("forward", "float32", 20736) == 2e-6
    assert limit("gradient", "float32", 20736) == 2e-5
    assert limit("forward", "float64", 10**12) == 1e-12
    assert limit("training", "float32") == 2e-5
    assert limit("training", "float64") == 1e-9


def test_limits_rejects_what_the_table_does_not_hold():
    with pytest.raises(ValueError, match="no tolerance for int32: the table has float64"):
        limits(jnp.int32)
    with pytest.raises(ValueError, match="reduction_length=0"):
        limits(jnp.float32, 0)


@pytest.mark.parametrize("dtype", MACHINE_EPSILONS)
def test_the_limit_separates_close_from_not_close(dtype):
    expected = np.array([1.0, -4.0, 0.0])
    limit = 4 * limits(dtype, 9)
    assert_close(expected + 0.9 * limit, expected, dtype=dtype, reduction_length=9)
    with pytest.raises(AssertionError, match="3 of 3 elements differ"):
        assert_close(expected + 1.1 * limit, expected, dtype=dtype, reduction_length=9)


def test_message_names_the_worst_element():
    with pytest.raises(AssertionError, match=r"the worst is 5.00e-01 at \(1, 0\): 3.5, expected 3"):
        assert_close([[1.0, 2.0], [3.5, 4.0]], [[1.0, 2.0], [3.0, 4.0]])


def test_the_coarser_dtype_of_the_two_decides():
    expected = np.array([1.0, 2.0])
    noisy = expected * (1 + 1e-7)
    assert_close(noisy.astype(np.float32), expected)
    with pytest.raises(AssertionError, match="dtype float64"):
        assert_close(noisy, expected)
    assert_close(jnp.array([1.01, 2.0], jnp.bfloat16), expected)


def test_a_sum_in_float32_is_within_its_limit():
    length = 4096
    terms = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    actual = np.cumsum(terms, dtype=np.float32)
    assert_close(actual, np.cumsum(terms, dtype=np.float64), reduction_length=length)


def test_zeros_and_integers_must_be_met_exactly():
    assert_close(np.zeros(3), np.zeros(3))
    with pytest.raises(AssertionError, match="1 of 3"):
        assert_close(np.array([0.0, 1e-30, 0.0]), np.zeros(3))
    assert_close(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(AssertionError, match="1 of 2"):
        assert_close(np.array([1, 3]), np.array([1, 2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_close(bad):
    with pytest.raises(AssertionError, match=r"actual is .* at \(1,\)"):
        assert_close(np.array([1.0, bad]), np.array([1.0, 2.0]))
    with pytest.raises(AssertionError, match=r"expected is .* at \(0,\)"):
        assert_close(np.array([1.0, 2.0]), np.array([bad, 2.0]))


def test_shapes_must_agree():
    with pytest.raises(AssertionError, match=r"shape \(2,\), expected \(2, 1\)"):
        assert_close(np.zeros(2), np.zeros((2, 1)))
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
