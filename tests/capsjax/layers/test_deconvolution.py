"""The decoder that enlarges: transposed convolutions, one pose, images of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from capsjax import ConvDecoder
from capsjax.layers.deconvolution import _spread
from tests.tolerance import assert_close

DIM = 4


def decoder(image_shape=(8, 6, 2), **options):
    options = {"channels": 3, "features": (5, 4), "strides": (1, 2)} | options
    return ConvDecoder(DIM, image_shape, **options, rngs=nnx.Rngs(0))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_a_convolution_is_the_transpose_of_a_strided_one(kernel_size, stride):
    small, kernel = draw(1, 3, 4, 2), draw(kernel_size, kernel_size, 2, 5, seed=1)
    numbers = ("NHWC", "HWIO", "NHWC")
    enlarged = lax.conv_general_dilated(
        _spread(small, stride, kernel_size), kernel, (1, 1), "VALID", dimension_numbers=numbers
    )
    assert enlarged.shape == (1, 3 * stride, 4 * stride, 5)

    def shrink(large):
        turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        return lax.conv_general_dilated(
            large, turned, (stride, stride), "SAME", dimension_numbers=numbers
        )

    _, pullback = jax.vjp(shrink, jnp.zeros_like(enlarged))
    assert_close(enlarged, pullback(small)[0], reduction_length=2 * kernel_size**2)


def test_the_class_makes_no_difference():
    model = decoder()
    one, other = draw(2, DIM, seed=1), draw(2, DIM, seed=2)
    mask = jnp.asarray([[1.0, 0, 0], [0, 0, 1.0]])
    pose = jnp.stack([one, other, one], axis=1)
    expected = model(one[:, None], jnp.ones((2, 1)))
    np.testing.assert_array_equal(model(pose, mask), expected)
    assert (expected >= 0).all()
    assert expected.max() > 0


@pytest.mark.parametrize(
    ("shape", "strides", "small"),
    [((8, 6, 2), (2, 2), (2, 2)), ((7, 9, 1), (1, 2), (4, 5)), ((5, 5, 3), (1, 1), (5, 5))],
)
def test_images_of_any_size(shape, strides, small):
    model = decoder(shape, strides=strides)
    assert model.small_shape == (*small, 3)
    pose, mask = draw(2, 1, DIM), jnp.ones((2, 1))
    assert model(pose, mask).shape == (2, *shape)


def test_nothing_but_the_last_is_rectified():
    """Between the normalisation and the end, the decoder is linear."""
    model = decoder()
    model.eval()
    for convolution in model.convolutions:
        convolution.bias[...] = jnp.zeros_like(convolution.bias[...])
    model.convolutions[-1].bias[...] = jnp.full(2, 100.0)  # keeps the rectifier open
    pose, mask = draw(2, 1, DIM), jnp.ones((2, 1))
    once = model(pose, mask) - 100
    model.norm.scale[...] = 2 * model.norm.scale[...]
    assert np.abs(once).max() > 0.01
    assert_close(model(pose, mask) - 100, 2 * once, dtype="bfloat16")  # a sum with 100 rounds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2,)}, "of the same convolutions, but there are 2 and 1"),
        ({"channels": 0}, "channels must be an integer of at least 1, not 0"),
        ({"features": (5, 0)}, "each value of features must be an integer of at least 1, not 0"),
        ({"image_shape": (8, 6)}, "image_shape is"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        decoder(**options)
