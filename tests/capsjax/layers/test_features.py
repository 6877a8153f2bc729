"""Local features: convolutions, normalised or not, and the blocks of a residual network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import ConvFeatures
from capsjax.layers import NormalizedConv, ResidualFeatures
from tests.tolerance import assert_close

SHAPE = (5, 6, 3)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@nnx.jit
def run(layer, x):
    return layer(x)


def residual(**options):
    options = {"features": (4, 7), "blocks": (1, 1), "strides": (1, 2)} | options
    return ResidualFeatures(SHAPE, **options, rngs=nnx.Rngs(0))


def test_conv_features_are_a_rectified_convolution():
    layer = ConvFeatures((7, 6, 3), 5, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
    layer.conv.bias[...] = draw(5)
    images = draw(2, 7, 6, 3, seed=1)
    kernel, bias = np.asarray(layer.conv.kernel[...]), np.asarray(layer.conv.bias[...])
    assert layer.output_shape == (3, 2, 5)
    expected = np.zeros((2, 3, 2, 5))
    for y in range(3):
        for x in range(2):
            window = images[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            expected[:, y, x] = np.einsum("nabc,abcf->nf", window, kernel) + bias
    assert_close(run(layer, images), np.maximum(expected, 0), reduction_length=27)


def test_a_rectifier_may_be_leaky_and_a_slope_is_no_more_than_1():
    layer, images = ConvFeatures((6, 6, 2), 3, kernel_size=3, rngs=nnx.Rngs(0)), draw(2, 6, 6, 2)
    leaky = ConvFeatures((6, 6, 2), 3, kernel_size=3, negative_slope=0.3, rngs=nnx.Rngs(0))
    maps = np.asarray(run(layer.conv, images))
    assert (maps < 0).any()
    assert_close(run(leaky, images), np.where(maps > 0, maps, 0.3 * maps), reduction_length=18)
    with pytest.raises(ValueError, match="negative_slope must be"):
        ConvFeatures((6, 6, 2), 3, kernel_size=3, negative_slope=2.0, rngs=nnx.Rngs(0))


def test_maps_may_be_normalised_one_by_one():
    layer = ConvFeatures((6, 6, 2), 3, kernel_size=3, instance_norm=True, rngs=nnx.Rngs(0))
    images = draw(2, 6, 6, 2)
    maps = np.asarray(run(layer.conv, images), np.float64)
    variance = maps.var(axis=(1, 2), keepdims=True)
    normalised = (maps - maps.mean(axis=(1, 2), keepdims=True)) / np.sqrt(variance + 1e-5)
    assert_close(run(layer, images), np.maximum(normalised, 0), reduction_length=18)
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 2


@pytest.mark.parametrize("rectified", [True, False])
def test_a_convolution_is_normalised_before_it_is_rectified(rectified):
    layer = NormalizedConv(
        (6, 7, 3), 5, kernel_size=3, stride=2, rectified=rectified, rngs=nnx.Rngs(0)
    )
    maps = run(layer, draw(4, 6, 7, 3))
    assert maps.shape == (4, *layer.output_shape) == (4, 2, 3, 5)
    expected = run(layer.norm, run(layer.conv, draw(4, 6, 7, 3)))
    assert_close(maps, np.maximum(expected, 0) if rectified else expected, reduction_length=27)
    assert layer.conv.bias is None


@pytest.mark.parametrize("shortcut", ["convolution", "zeros"])
def test_a_block_adds_to_what_it_sees(shortcut):
    network, x = residual(shortcut=shortcut), draw(2, *SHAPE)
    assert network.blocks[0].around is None

    @nnx.jit
    def by_hand(network, x):
        stem = nnx.relu(network.stem(x))
        first, second = network.blocks
        below = nnx.relu(stem + first.second(nnx.relu(first.first(stem))))
        way = second.second(nnx.relu(second.first(below)))
        if shortcut == "zeros":
            # One zero before them, two after.
            around = jnp.zeros(way.shape).at[..., 1:5].set(below[:, ::2, ::2])
        else:
            around = second.around(below)
        return network(x), nnx.relu(way + around)

    maps, expected = by_hand(network, x)
    assert maps.shape == (2, *network.output_shape) == (2, 3, 3, 7)
    assert_close(maps, expected, reduction_length=36)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConvFeatures((4, 4, 1), 4, kernel_size=5, rngs=nnx.Rngs(0)),
            "a 5x5 kernel does not fit on an input of 4x4",
        ),
        (
            lambda: ConvFeatures((4, 4, 1), 1.5, kernel_size=3, rngs=nnx.Rngs(0)),
            "features must be an integer of at least 1, not 1.5",
        ),
        (
            lambda: residual(features=(4, 2), shortcut="zeros"),
            "2 features cannot be those of 4 and zeros: choose shortcut='convolution'",
        ),
        (lambda: residual(shortcut="none"), "unknown shortcut 'none', choose from: convolution"),
        (
            lambda: NormalizedConv((2, 6, 3), 4, kernel_size=3, rngs=nnx.Rngs(0)),
            "a 3x3 kernel does not fit on an input of 2x6: choose a smaller kernel",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
