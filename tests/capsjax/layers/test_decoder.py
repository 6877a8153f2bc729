"""Decoders: dense layers from one class, and convolutions that enlarge a pose to any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from capsjax import Decoder
from capsjax.layers import ConvDecoder
from capsjax.layers.decoder import _spread
from tests.tolerance import assert_close

BATCH, DIM = 2, 4


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@nnx.jit
def run(model, pose, mask):
    return model(pose, mask)


def decode(layer, x):
    """Dense layers in NumPy: rectifiers between and a sigmoid at the end."""
    *hidden, last = [(np.asarray(d.kernel[...]), np.asarray(d.bias[...])) for d in layer.layers]
    for kernel, bias in hidden:
        x = np.maximum(x @ kernel + bias, 0)
    return 1 / (1 + np.exp(-(x @ last[0] + last[1])))


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_the_decoder_sees_the_capsules_that_the_mask_keeps(combine):
    layer = Decoder(3, 4, (2, 5, 2), hidden=(6, 7), combine=combine, rngs=nnx.Rngs(0))
    pose = draw(BATCH, 3, 4)
    mask = np.asarray([[0, 1, 0], [1, 0, 0]], np.float32)
    masked = np.asarray(pose, np.float64) * mask[:, :, None]
    inputs = masked.reshape(BATCH, 12) if combine == "concat" else masked.sum(axis=1)
    images = run(layer, pose, jnp.asarray(mask))
    expected = decode(layer, inputs).reshape(BATCH, 2, 5, 2)
    assert_close(images, expected, dtype="float32", reduction_length=12)


def test_the_hidden_layers_of_a_decoder_begin_as_they_are_told():
    zeros = nnx.initializers.zeros
    layer = Decoder(3, 4, (2, 2, 1), hidden=(5, 6), hidden_init=zeros, rngs=nnx.Rngs(0))
    *hidden, last = (d.kernel[...] for d in layer.layers)
    assert not any(kernel.any() for kernel in hidden)
    assert last.any()


def test_a_decoder_without_hidden_layers():
    layer = Decoder(3, 4, (2, 2, 1), hidden=(), rngs=nnx.Rngs(0))
    assert len(layer.layers) == 1
    assert layer(jnp.zeros((1, 3, 4)), jnp.zeros((1, 3))).shape == (1, 2, 2, 1)


def decoder(image_shape=(8, 6, 2), **options):
    options = {"channels": 3, "features": (5, 4), "strides": (1, 2)} | options
    return ConvDecoder(DIM, image_shape, **options, rngs=nnx.Rngs(0))


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
    expected = run(model, one[:, None], jnp.ones((2, 1)))
    np.testing.assert_array_equal(run(model, pose, mask), expected)
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
    assert run(model, pose, mask).shape == (2, *shape)


def test_nothing_but_the_last_is_rectified():
    """Between the normalisation and the end, the decoder is linear."""
    model = decoder()
    model.eval()
    for convolution in model.convolutions:
        convolution.bias[...] = jnp.zeros_like(convolution.bias[...])
    model.convolutions[-1].bias[...] = jnp.full(2, 100.0)  # keeps the rectifier open
    pose, mask = draw(2, 1, DIM), jnp.ones((2, 1))
    once = run(model, pose, mask) - 100
    model.norm.scale[...] = -model.norm.scale[...]  # what a rectifier would not pass on
    assert np.abs(once).max() > 0.01
    assert_close(run(model, pose, mask) - 100, -once, dtype="bfloat16")  # a sum with 100 rounds


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Decoder(3, 4, (2, 2, 1), hidden=(8, 0), rngs=nnx.Rngs(0)),
            "each value of hidden must be an integer of at least 1, not 0",
        ),
        (
            lambda: Decoder(3, 4, (2, 2), hidden=(8,), rngs=nnx.Rngs(0)),
            r"image_shape is \(height, width, channels\), not \(2, 2\)",
        ),
        (
            lambda: Decoder(3, 4, (2, 2, 1), hidden=(8,), combine="mean", rngs=nnx.Rngs(0)),
            "unknown combine 'mean', choose from: concat, sum",
        ),
        (
            lambda: decoder(strides=(2,)),
            "each convolution needs .* features has 2, strides has 1",
        ),
        (lambda: decoder(channels=0), "channels must be an integer of at least 1, not 0"),
        (
            lambda: decoder(features=(5, 0)),
            "each value of features must be an integer of at least 1, not 0",
        ),
        (lambda: decoder((8, 6)), "image_shape is"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: Decoder(3, 4, (2, 2, 1), hidden=(8,), rngs=nnx.Rngs(0)), lambda: decoder()]
)
def test_what_is_masked_is_nothing_and_the_mask_is_of_these_capsules(make):
    made = make()
    pose = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    mask = jnp.eye(3)[:2]
    with jax.debug_nans(False):
        broken = pose.at[:, 2].set(jnp.nan)
    np.testing.assert_array_equal(made(broken, mask), made(pose.at[:, 2].set(0), mask))
    with pytest.raises(ValueError, match=r"a mask must have the shape .* \[2, 3\], not \[1, 3\]"):
        made(pose, mask[:1])
    # As many numbers in all, but of other capsules; and those of one image.
    for wrong in ((2, 2, 6), (3, 4)):
        with pytest.raises(ValueError, match=r"poses must be of shape \[batch, (3|J), 4\], not \["):
            made(jnp.ones(wrong), jnp.ones(wrong[:-1]))
