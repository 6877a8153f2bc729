"""The losses against numbers worked by hand and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import margin_loss, reconstruction_loss, spread_loss
from tests.tolerance import assert_close

LENGTHS = jnp.asarray([[0.5, 0.3, 0.05], [0.95, 0.1, 0.6]])
FIRST = jnp.asarray([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def test_margin_loss_by_hand():
    # (0.9 - 0.5)^2 + 0.5 (0.3 - 0.1)^2 + 0 and 0 + 0 + 0.5 (0.6 - 0.1)^2
    assert_close(margin_loss(LENGTHS, FIRST), jnp.asarray([0.18, 0.125]))


def test_margin_loss_that_is_not_squared_by_hand():
    # 0.4 + 0.5 x 0.2 and 0.5 x 0.5
    assert_close(margin_loss(LENGTHS, FIRST, power=1), jnp.asarray([0.5, 0.25]))


def test_margin_loss_of_several_present_classes():
    both = jnp.asarray([[1.0, 1.0, 0.0]])
    # 0.4^2 + 0.6^2
    assert_close(margin_loss(LENGTHS[:1], both), jnp.asarray([0.52]))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_margin_loss_with_other_margins(power):
    rng = np.random.default_rng(0)
    lengths, targets = rng.uniform(size=(4, 5, 7)), rng.integers(0, 2, (4, 5, 7)).astype(np.float64)
    loss = margin_loss(
        jnp.asarray(lengths, jnp.float32),
        jnp.asarray(targets, jnp.float32),
        positive_margin=0.8,
        negative_margin=0.3,
        negative_weight=0.25,
        power=power,
    )
    present = np.maximum(0, 0.8 - lengths) ** power
    absent = np.maximum(0, lengths - 0.3) ** power
    expected = (targets * present + 0.25 * (1 - targets) * absent).sum(-1)
    assert_close(loss, expected, dtype="float32", reduction_length=7)


def test_margin_loss_is_zero_without_a_gradient_inside_the_margins():
    lengths = jnp.asarray([[0.95, 0.05, 0.0]])
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(margin_loss(x, FIRST[:1])))(lengths)
    assert loss == 0
    assert not np.any(gradient)


def test_integer_targets_and_coarse_lengths_are_computed_in_float32():
    targets = jnp.asarray([[1, 0, 0]])
    lengths = jnp.asarray([[0.5, 0.25, 0.0]], jnp.bfloat16)
    loss = margin_loss(lengths, targets)
    assert loss.dtype == jnp.float32
    assert_close(loss, jnp.asarray([0.4**2 + 0.5 * 0.15**2], jnp.float32))


def test_spread_loss_by_hand():
    # 0.7^2 + 0.45^2 and 0.05^2 + 0.55^2; with less to exceed by, 0.2^2 and 0.05^2
    assert_close(spread_loss(LENGTHS, FIRST), jnp.asarray([0.6925, 0.305]), reduction_length=3)
    narrow = spread_loss(LENGTHS, FIRST, margin=jnp.asarray(0.4))
    assert_close(narrow, jnp.asarray([0.04, 0.0025]), reduction_length=3)
    coarse = spread_loss(LENGTHS.astype(jnp.bfloat16), FIRST.astype(jnp.int32))
    assert coarse.dtype == jnp.float32


def test_reconstruction_loss_is_the_summed_squared_error():
    rng = np.random.default_rng(0)
    reconstruction, images = rng.uniform(size=(2, 3, 4, 5, 2)).astype(np.float32)
    loss = reconstruction_loss(jnp.asarray(reconstruction), jnp.asarray(images))
    expected = ((reconstruction.astype(np.float64) - images) ** 2).sum((1, 2, 3))
    assert_close(loss, expected, dtype="float32", reduction_length=40)


def test_reconstruction_loss_of_coarse_images_is_computed_in_float32():
    reconstruction = jnp.zeros((1, 2, 2, 1))
    images = jnp.full((1, 2, 2, 1), 0.5, jnp.bfloat16)
    loss = reconstruction_loss(reconstruction, images)
    assert loss.dtype == jnp.float32
    assert_close(loss, jnp.asarray([1.0]))


def test_float64_stays_float64():
    with jax.enable_x64(True):
        lengths = jnp.asarray([[0.5, 0.3]], jnp.float64)
        assert_close(margin_loss(lengths, jnp.asarray([[1, 0]])), np.asarray([0.16 + 0.02]))
        images = jnp.zeros((1, 1, 1, 1), jnp.float64)
        assert reconstruction_loss(images, images).dtype == jnp.float64


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"lengths and targets .* not \(2, 3\) and \(3,\)"):
        margin_loss(LENGTHS, FIRST[0])
    with pytest.raises(ValueError, match="activations and targets must have the same shape"):
        spread_loss(LENGTHS, FIRST[0])
    with pytest.raises(ValueError, match="reconstruction and images must have the same shape"):
        reconstruction_loss(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 16)))


@pytest.mark.parametrize("power", [0, -1, 1.5, True])
def test_wrong_powers_are_refused(power):
    with pytest.raises(ValueError, match="power must be an integer of at least 1"):
        margin_loss(LENGTHS, FIRST, power=power)
