"""Norm and squash against their formulas in float64 NumPy, and where formulas break down."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from capsjax import Squash, norm, squash
from capsjax.capsules import ExponentialSquash, accumulation_dtype, squash_from
from tests.tolerance import assert_close

MAGNITUDES = [1e-30, 1e-20, 1e-8, 1e-3, 1.0, 30.0, 1e8, 1e20, 1e30]
VARIANTS = [
    Squash(axis, epsilon, place)
    for axis, (epsilon, place) in itertools.product(
        ["pose", "capsules", "element"], [(0.0, "length"), (1e-8, "length"), (1e-7, "square")]
    )
]
PAPER = Squash()
LARGE_EPSILONS = [Squash("pose", 0.3, "length"), Squash("pose", 0.3, "square")]
EXPONENTIALS = [ExponentialSquash(), ExponentialSquash(0.0), ExponentialSquash(0.3)]


def draw(*shape, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def numpy_squash(s, variant=PAPER):
    """The formula, term by term, of numbers that may be complex."""
    s = np.asarray(s, np.result_type(s, np.float64))
    if isinstance(variant, ExponentialSquash):
        n = np.sqrt((s**2).sum(axis=-1, keepdims=True))
        e_less_1 = np.expm1(np.minimum(n, 700))  # more is no float64 number, and 1 / more is none
        e = variant.epsilon
        return (e_less_1 + e) / (e_less_1 + 1 + e) * (s / (n + e))
    if variant.axis == "element":
        n = np.sqrt(s**2)
    else:
        axis = {"pose": -1, "capsules": -2}[variant.axis]
        n = np.sqrt(np.sum(s**2, axis=axis, keepdims=True))
    if variant.epsilon_in == "length":
        divisor = n + variant.epsilon
    else:
        divisor = np.sqrt(n**2 + variant.epsilon)
    return n**2 / (1 + n**2) * s / divisor


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(function, x, weights):
    """A function of x, and the gradient of its sum weighted by the weights."""
    value, pullback = jax.vjp(function, x)
    return value, pullback(weights)[0]


def gradient_of_formula(variant, s, weights, step=1e-30):
    """That of the weighted sum, by steps along the imaginary axis: without differences, exact."""
    gradient = np.zeros_like(s)
    for index in np.ndindex(s.shape):
        moved = s.astype(complex)
        moved[index] += 1j * step
        gradient[index] = np.imag((numpy_squash(moved, variant) * weights).sum()) / step
    return gradient


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")],
)
def test_what_is_accumulated_is_float32_at_least(dtype, expected):
    assert accumulation_dtype(dtype) == expected
    x = jnp.ones((2, 3), dtype)
    assert norm(x).dtype == squash(x).dtype == Squash(epsilon=0.1)(x).dtype == expected


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = draw(4, 5)
        assert norm(jnp.asarray(x)).dtype == squash(jnp.asarray(x)).dtype == jnp.float64
        assert_close(norm(jnp.asarray(x)), np.linalg.norm(x, axis=-1), reduction_length=5)
        assert_close(squash(jnp.asarray(x)), numpy_squash(x), reduction_length=5)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_norm_is_the_length_and_its_gradient_the_direction_at_every_magnitude(magnitude):
    x = draw(6, 8, scale=magnitude).astype(np.float32)
    value, gradient = value_and_gradient(norm, jnp.asarray(x), jnp.ones(6))
    wide = x.astype(np.float64)
    length = np.linalg.norm(wide, axis=-1)
    assert_close(value, length, dtype="float32", reduction_length=8)
    assert_close(gradient, wide / length[:, None], dtype="float32", reduction_length=8)


def test_an_infinite_vector_has_an_infinite_length():
    assert norm(jnp.array([jnp.inf, 1.0])) == jnp.inf
    assert jnp.isnan(norm(jnp.array([jnp.nan, jnp.inf])))


def test_norm_keeps_the_axis_if_asked():
    x = jnp.asarray(draw(2, 3, 4), jnp.float32)
    assert norm(x, axis=1).shape == (2, 4)
    assert norm(x, axis=1, keepdims=True).shape == (2, 1, 4)


@pytest.mark.parametrize(
    "function",
    [norm, squash, *VARIANTS, *LARGE_EPSILONS],
    ids=lambda f: str(getattr(f, "__name__", f)),
)
def test_zero_stays_zero_with_a_zero_gradient(function):
    x = jnp.zeros((6, 8))
    weights = jnp.ones(6 if function is norm else (6, 8))
    value, gradient = value_and_gradient(function, x, weights)
    assert not np.any(value)
    assert not np.any(gradient)
    forward = jax.jit(lambda x: jax.jvp(function, (x,), (x + 1,))[1])(x)
    assert not np.any(forward)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0.0, 1e-40, 1e-30, 1e-17])
def test_exponential_squash_leaves_a_short_vector_as_it_is(length, dtype):
    with jax.enable_x64(True):
        s = jnp.asarray(length * np.eye(2, 3), dtype)
        weights = jnp.asarray(draw(2, 3), dtype)
        value, gradient = value_and_gradient(ExponentialSquash(), s, weights)
    expected = np.where(np.asarray(s) < np.finfo(dtype).tiny, 0, np.asarray(s))
    assert_close(value, expected, reduction_length=3)
    # So the derivative in zero is the limit of those around it.
    assert_close(gradient, np.asarray(weights, np.float64), dtype=dtype, reduction_length=3)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_published_epsilon_of_exponential_squash_changes_nothing(magnitude):
    with jax.enable_x64(True):
        s = jnp.asarray(draw(6, 8, scale=magnitude))
        assert_close(ExponentialSquash()(s), ExponentialSquash(0.0)(s))


def test_a_zero_capsule_does_not_disturb_its_neighbours():
    s, weights = draw(6, 8).astype(np.float32), draw(6, 8, seed=1).astype(np.float32)
    _, before = value_and_gradient(squash, s, weights)
    s[2] = 0
    _, after = value_and_gradient(squash, s, weights)
    others = np.arange(6) != 2
    assert not np.any(after[2])
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("variant", VARIANTS + LARGE_EPSILONS + EXPONENTIALS, ids=str)
def test_squash_is_its_formula_at_every_magnitude_with_a_finite_gradient(variant, magnitude):
    s, weights = draw(6, 8, scale=magnitude).astype(np.float32), draw(6, 8, seed=1)
    value, gradient = value_and_gradient(variant, s, jnp.asarray(weights, jnp.float32))
    expected = numpy_squash(s, variant)
    # What has no normal float32 number may be zero.
    smallest = np.finfo(np.float32).tiny
    expected = np.where(np.abs(expected) < smallest, 0, expected)
    value = np.where(np.abs(value) < smallest, 0, value)
    assert_close(value, expected, dtype="float32", reduction_length=8)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("variant", VARIANTS + LARGE_EPSILONS + EXPONENTIALS, ids=str)
def test_gradient_of_squash_is_that_of_its_formula(variant, scale):
    s, weights = draw(3, 4, scale=scale), draw(3, 4, seed=1)
    with jax.enable_x64(True):
        _, gradient = value_and_gradient(variant, jnp.asarray(s), jnp.asarray(weights))
    expected = gradient_of_formula(variant, s, weights)
    assert_close(gradient, expected, reduction_length=4)


@pytest.mark.parametrize("magnitude", [m for m in MAGNITUDES if m <= 1e8])
@pytest.mark.parametrize("function", [PAPER, *EXPONENTIALS], ids=str)
def test_gradient_of_squash_loses_no_digits_at_any_magnitude(function, magnitude):
    s, weights = (x.astype(np.float32) for x in (draw(6, 8, scale=magnitude), draw(6, 8, seed=1)))
    _, gradient = value_and_gradient(function, jnp.asarray(s), jnp.asarray(weights))
    with jax.enable_x64(True):
        wide, wide_weights = (jnp.asarray(x, jnp.float64) for x in (s, weights))
        _, expected = value_and_gradient(function, wide, wide_weights)
    assert_close(gradient, expected, dtype="float32", reduction_length=8)


def test_squash_without_arguments_is_the_papers_to_the_last_bit():
    s = jnp.asarray(draw(6, 8), jnp.float32)
    np.testing.assert_array_equal(Squash()(s), squash(s))


def test_squash_keeps_the_direction_and_shortens_to_less_than_one():
    s = draw(50, 8, scale=3).astype(np.float32)
    v = np.asarray(squash(jnp.asarray(s)), np.float64)
    n = np.linalg.norm(s.astype(np.float64), axis=-1)
    assert (np.linalg.norm(v, axis=-1) < 1).all()
    assert_close(np.linalg.norm(v, axis=-1), n**2 / (1 + n**2), dtype="float32", reduction_length=8)
    assert_close((v * s).sum(-1), np.linalg.norm(v, axis=-1) * n, dtype="float32")


@settings(max_examples=5)
@given(arrays(np.float32, (100, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_squash_of_any_vector_is_no_longer_than_one(values):
    v = np.asarray(jax.jit(squash)(values), np.float64)
    assert (np.linalg.norm(v, axis=-1) <= 1 + 8 * np.finfo(np.float32).eps).all()


def test_an_axis_is_the_same_as_that_axis_moved_to_the_end():
    @jax.jit
    def of_each_axis(x):
        moved = [jnp.moveaxis(x, axis, -1) for axis in range(-3, 3)]
        squashed = [
            jnp.moveaxis(squash(m), -1, axis) for m, axis in zip(moved, range(-3, 3), strict=True)
        ]
        by_axis = [(norm(x, axis), squash(x, axis)) for axis in range(-3, 3)]
        return by_axis, list(zip(map(norm, moved), squashed, strict=True))

    by_axis, by_moving = of_each_axis(jnp.asarray(draw(3, 4, 2), jnp.float32))
    for ours, theirs in zip(*map(jax.tree.leaves, (by_axis, by_moving)), strict=True):
        assert_close(ours, theirs, reduction_length=4)


def test_axes_of_squash_by_name():
    s = jnp.asarray(draw(2, 5, 3), jnp.float32)
    np.testing.assert_array_equal(Squash("pose")(s), squash(s, -1))
    np.testing.assert_array_equal(Squash("capsules")(s), squash(s, -2))
    np.testing.assert_array_equal(Squash("element")(s), squash(s[..., None])[..., 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axis": "poses"}, "'poses', choose from: pose, capsules, element"),
        ({"axis": -1}, "-1, choose from: pose"),
        ({"epsilon_in": "root"}, "'root', choose from: length, square"),
        ({"epsilon": -1e-8}, "from 0 to 1, not -1e-08"),
        ({"epsilon": float("nan")}, "from 0 to 1, not nan"),
        ({"epsilon": "small"}, "from 0 to 1, not 'small'"),
        ({"eps": 1e-8}, "'eps', choose from: axis, epsilon, epsilon_in"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        squash_from(fields)


@pytest.mark.parametrize("epsilon", [-1e-20, 2, "small", float("nan")])
def test_wrong_epsilons_of_exponential_squash_are_named(epsilon):
    with pytest.raises(ValueError, match="ExponentialSquash: epsilon must be a number from 0 to 1"):
        ExponentialSquash(epsilon)


def test_squash_from_a_dict_a_function_or_nothing_of_the_kind():
    assert squash_from({"axis": "element", "epsilon": 0}) == Squash(axis="element")
    assert squash_from(jnp.tanh) is jnp.tanh
    assert squash_from("exponential") == ExponentialSquash()
    with pytest.raises(ValueError, match="squash must be a Squash or .*, not <class .*Squash'>"):
        squash_from(Squash)
    with pytest.raises(ValueError, match="'fast'; by name there is: exponential"):
        squash_from("fast")
    with pytest.raises(ValueError, match="a dict of its fields, not 'element'"):
        squash_from("element")
