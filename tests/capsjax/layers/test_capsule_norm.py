"""Batch normalisation of capsules against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules
from capsjax.layers.capsule_norm import CapsuleNorm
from tests.tolerance import assert_close

TYPES, DIM = 3, 4


def capsules(*leading, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    pose, logits = rng.normal(1, 2, (*leading, TYPES, DIM)), rng.normal(2, 3, (*leading, TYPES))
    return Capsules(jnp.asarray(pose, dtype), jnp.asarray(logits, jnp.float32))


def norm(**options):
    return CapsuleNorm(TYPES, DIM, **{"over": "element", **options}, rngs=nnx.Rngs(0))


def normal(x, axes):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize("leading", [(9,), (5, 3, 2)])
@pytest.mark.parametrize("over", ["element", "type"])
def test_what_is_normalised_together(leading, over):
    below = capsules(*leading)
    axes = tuple(range(len(leading)))
    above = norm(over=over, logits=True)(below)
    expected = normal(below.pose, axes if over == "element" else (*axes, -1))
    assert_close(above.pose, expected, dtype="float32", reduction_length=120)
    expected = 1 / (1 + np.exp(-normal(below.activation, axes)))
    assert_close(above.activation, expected, dtype="float32", reduction_length=30)


def test_activations_that_are_no_logits_stay():
    below = capsules(7)
    np.testing.assert_array_equal(norm()(below).activation, below.activation)


def test_scale_and_bias_if_there_are_any():
    layer, below = norm(over="type"), capsules(7)
    plain = norm(over="type", affine=False)
    assert not nnx.state(plain, nnx.Param)
    layer.pose.scale[...], layer.pose.bias[...] = jnp.asarray([1.0, 2, 3]), jnp.asarray([0.0, 1, 2])
    expected = plain(below).pose * jnp.asarray([1.0, 2, 3])[None, :, None]
    expected = expected + jnp.asarray([0.0, 1, 2])[None, :, None]
    assert_close(layer(below).pose, expected)


def test_coarse_poses_and_exact_activations():
    above = norm(logits=True, dtype=jnp.bfloat16)(capsules(7, dtype=jnp.bfloat16))
    assert above.pose.dtype == jnp.bfloat16
    assert above.activation.dtype == jnp.float32


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="unknown over 'batch', choose from: element, type"):
        norm(over="batch")


def test_a_batch_that_is_spread_is_normalised_as_a_whole():
    below = capsules(6, 2)
    whole = norm(logits=True)(below)
    graphdef, state = nnx.split(norm(logits=True, batch_axis="parts"))
    spread = jax.tree.map(lambda x: x.reshape(3, 2, *x.shape[1:]), below)
    parts = jax.vmap(lambda x: nnx.merge(graphdef, state, copy=True)(x), axis_name="parts")(spread)
    for ours, theirs in zip(parts, whole, strict=True):
        assert_close(ours.reshape(theirs.shape), theirs, reduction_length=12)
