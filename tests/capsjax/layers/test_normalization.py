"""Batch normalisation of maps and capsules against NumPy, also of a batch that is spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules
from capsjax.layers import BatchNorm, CapsuleNorm
from tests.tolerance import assert_close

FEATURES = 3
TYPES, DIM = 3, 4


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(2, 3, shape), jnp.float32)


def layer(**options):
    norm = BatchNorm(FEATURES, **options, rngs=nnx.Rngs(0))
    norm.scale[...] = jnp.asarray([0.5, 1, 2], norm.scale.dtype)
    norm.bias[...] = jnp.asarray([1, 0, -1], norm.bias.dtype)
    return norm


def expected(x, norm, mean, var):
    x, scale, bias = (np.asarray(a, np.float64) for a in (x, norm.scale[...], norm.bias[...]))
    return scale * (x - mean) / np.sqrt(var + norm.epsilon) + bias


@pytest.mark.parametrize("shape", [(5, FEATURES), (4, 5, 6, FEATURES)])
def test_in_training_a_batch_is_normalised_by_itself_and_the_averages_move(shape):
    norm, x = layer(momentum=0.9, epsilon=0.1), draw(*shape)
    wide = np.asarray(x, np.float64).reshape(-1, FEATURES)
    mean, var = wide.mean(0), wide.var(0)
    assert_close(norm(x), expected(x, norm, mean, var), dtype="float32", reduction_length=120)
    assert_close(norm.mean[...], 0.1 * mean, dtype="float32", reduction_length=120)
    assert_close(norm.var[...], 0.9 + 0.1 * var, dtype="float32", reduction_length=120)


def test_in_test_the_averages_are_taken_and_stay():
    norm, x = layer(), draw(7, FEATURES)
    norm.eval()
    norm.mean[...], norm.var[...] = jnp.asarray([1.0, 2, 3]), jnp.asarray([4.0, 1, 9])
    before = nnx.state(norm, nnx.BatchStat)
    mean, var = np.array([1, 2, 3]), np.array([4, 1, 9])
    assert_close(norm(x), expected(x, norm, mean, var), dtype="float32")
    assert_close(norm(x[:1]), norm(x)[:1])
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(norm, nnx.BatchStat))
    norm.train()
    assert np.abs(norm(x) - expected(x, norm, mean, var)).max() > 0.1


def test_a_constant_feature_has_its_value_as_mean_and_no_variance():
    # Of 7 x 6 x 5 equal numbers, float32 adds up another mean, which counts 1,000-fold here.
    constant = jnp.asarray([0.1, 1e4 / 3, -1e-3])
    norm = layer(epsilon=1e-12)
    x = jnp.broadcast_to(constant, (7, 6, 5, FEATURES))
    assert float(jnp.mean(x[..., 0])) != float(constant[0])
    value = nnx.jit(lambda norm, x: norm(x))(norm, x)
    np.testing.assert_array_equal(value, jnp.broadcast_to(norm.bias[...], x.shape))
    assert_close(norm.var[...], 0.99 * np.ones(FEATURES), dtype="float32")


def test_rare_values_among_many_equal_ones_are_measured_exactly():
    # What a rectifier leaves: a sum that adds the same small number again and again, and rounds
    # each time alike.
    x = np.zeros((7, 24, 24, FEATURES))
    x[::2, ::5, ::7] = np.random.default_rng(0).uniform(0, 100, x[::2, ::5, ::7].shape)
    norm = layer()
    value = nnx.jit(lambda norm, x: norm(x))(norm, jnp.asarray(x, jnp.float32))
    x = np.asarray(jnp.asarray(x, jnp.float32), np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    assert_close(value, expected(x, norm, mean, var), dtype="float32", reduction_length=24)


def test_the_gradient_agrees_with_that_of_the_definition():
    graphdef, params, rest = nnx.split(layer(), nnx.Param, ...)
    x = draw(6, 4, FEATURES)
    weights = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

    def ours(params, x):
        return jnp.sum(weights * nnx.merge(graphdef, params, rest, copy=True)(x))

    def plain(params, x):
        axes = (0, 1)
        mean = jnp.mean(x, axis=axes, keepdims=True)
        var = jnp.mean((x - mean) ** 2, axis=axes, keepdims=True)
        scale, bias = params["scale"][...], params["bias"][...]
        normal = (x - mean) / jnp.sqrt(var + 1e-3)
        return jnp.sum(weights * (normal * scale[None, None] + bias[None, None]))

    actual, wanted = (jax.jit(jax.grad(f, argnums=(0, 1)))(params, x) for f in (ours, plain))
    for a, b in zip(*map(jax.tree.leaves, (actual, wanted)), strict=True):
        assert_close(a, b, reduction_length=24)


def test_a_batch_that_is_spread_is_normalised_as_a_whole():
    x = draw(4, 3, 5, FEATURES)  # twelve examples, four in each part
    whole = layer()
    value = whole(x.reshape(12, 5, FEATURES))
    graphdef, state = nnx.split(layer(batch_axis="parts"))

    def part(x):
        norm = nnx.merge(graphdef, state, copy=True)
        return norm(x), norm.mean[...], norm.var[...]

    parts, mean, var = jax.vmap(part, axis_name="parts")(x)
    assert_close(parts.reshape(value.shape), value, reduction_length=60)
    for index in range(4):
        assert_close(mean[index], whole.mean[...], reduction_length=60)
        assert_close(var[index], whole.var[...], reduction_length=60)


def test_coarse_results_of_statistics_in_float32():
    norm = layer(dtype=jnp.bfloat16)
    value = norm(draw(50, FEATURES).astype(jnp.bfloat16))
    assert value.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32


def test_float64_throughout():
    with jax.enable_x64(True):
        norm = layer(dtype=jnp.float64, param_dtype=jnp.float64)
        assert norm(draw(5, FEATURES).astype(jnp.float64)).dtype == jnp.float64
        assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 2}, "momentum must be a number from 0 to 1, not 2"),
        ({"epsilon": 0}, "epsilon must be a number of more than 0, not 0"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


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


def test_wrong_values_of_capsules_are_named():
    with pytest.raises(ValueError, match="unknown over 'batch', choose from: element, type"):
        norm(over="batch")


def test_capsules_of_a_batch_that_is_spread_is_normalised_as_a_whole():
    below = capsules(6, 2)
    whole = norm(logits=True)(below)
    graphdef, state = nnx.split(norm(logits=True, batch_axis="parts"))
    spread = jax.tree.map(lambda x: x.reshape(3, 2, *x.shape[1:]), below)
    parts = jax.vmap(lambda x: nnx.merge(graphdef, state, copy=True)(x), axis_name="parts")(spread)
    for ours, theirs in zip(parts, whole, strict=True):
        assert_close(ours.reshape(theirs.shape), theirs, reduction_length=12)


def test_features_and_capsules_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"x must be of shape \[batch, ..., 3\], not \[4, 5, 1\]"):
        layer()(draw(4, 5, 1))
    pose, logits = capsules(5)
    with pytest.raises(ValueError, match=r"poses .* \[batch, ..., 3, 4\], not \[5, 3, 1\]"):
        norm(over="type")(Capsules(pose[..., :1], logits))
    with pytest.raises(ValueError, match=r"activations must be of shape \[5, 3\], not \[5, 1\]"):
        norm(over="type", logits=True)(Capsules(pose, logits[:, :1]))


def test_an_empty_batch_is_refused_in_training_and_leaves_nothing_in_test():
    made = layer()
    nothing = jnp.zeros((0, *made.mean.shape))
    with pytest.raises(
        ValueError, match=r"a batch of shape \[0, .*\] has no mean .* call eval\(\)"
    ):
        made(nothing)
    made.eval()
    assert made(nothing).shape == nothing.shape
