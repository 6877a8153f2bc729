"""Normalised convolutions, and the blocks of a residual network made of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import ResidualFeatures
from capsjax.layers.normalized import NormalizedConv
from tests.tolerance import assert_close

SHAPE = (5, 6, 3)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def residual(**options):
    options = {"features": (4, 7), "blocks": (1, 1), "strides": (1, 2)} | options
    return ResidualFeatures(SHAPE, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("rectified", [True, False])
def test_a_convolution_is_normalised_before_it_is_rectified(rectified):
    layer = NormalizedConv(
        (6, 7, 3), 5, kernel_size=3, stride=2, rectified=rectified, rngs=nnx.Rngs(0)
    )
    maps = layer(draw(4, 6, 7, 3))
    assert maps.shape == (4, *layer.output_shape) == (4, 2, 3, 5)
    expected = layer.norm(layer.conv(draw(4, 6, 7, 3)))
    assert_close(maps, np.maximum(expected, 0) if rectified else expected, reduction_length=27)
    assert layer.conv.bias is None


@pytest.mark.parametrize("shortcut", ["convolution", "zeros"])
def test_a_block_adds_to_what_it_sees(shortcut):
    network, x = residual(shortcut=shortcut), draw(2, *SHAPE)
    stem = nnx.relu(network.stem(x))
    first, second = network.blocks
    assert first.around is None
    below = nnx.relu(stem + first.second(nnx.relu(first.first(stem))))
    way = second.second(nnx.relu(second.first(below)))
    if shortcut == "zeros":
        around = np.zeros(way.shape, np.float32)
        around[..., 1:5] = below[:, ::2, ::2]  # one zero before them, two after
    else:
        around = second.around(below)
    maps = network(x)
    assert maps.shape == (2, *network.output_shape) == (2, 3, 3, 7)
    assert_close(maps, np.maximum(way + around, 0), reduction_length=36)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: residual(features=(4, 2), shortcut="zeros"),
            "2 features cannot be those of 4 and zeros: choose shortcut='convolution'",
        ),
        (lambda: residual(shortcut="none"), "unknown shortcut 'none', choose from: convolution"),
        (
            lambda: NormalizedConv((2, 6, 3), 4, kernel_size=3, rngs=nnx.Rngs(0)),
            "a 3x3 window does not fit on a grid of 2x6: choose a smaller kernel",
        ),
    ],
)
def test_wrong_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
