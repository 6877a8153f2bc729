"""Primary capsules: convolutions cut into capsules, and capsules on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import ConvPrimaryCaps, PrimaryCaps, Squash, norm, squash
from tests.tolerance import assert_close

BATCH, HEIGHT, WIDTH, TYPES, DIM = 2, 3, 5, 4, 6


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def primary(**options):
    """Primary capsules on a grid of HEIGHT x WIDTH positions."""
    return PrimaryCaps(
        (HEIGHT + 1, WIDTH + 1, 3), TYPES, DIM, kernel_size=2, rngs=nnx.Rngs(0), **options
    )


def cut(maps, order):
    """Cuts `[batch, height, width, channels]` into capsules, one number at a time."""
    batch, height, width, channels = maps.shape
    positions = height * width
    capsules = np.full((batch, positions * TYPES, DIM), np.nan)
    for y in range(height):
        for x in range(width):
            p = y * width + x
            for channel in range(channels):
                t, k = channel // DIM, channel % DIM
                if order == "position_major":
                    n = TYPES * p + t
                elif order == "type_major":
                    n = positions * t + p
                else:
                    place = channel * positions + p  # in the output, flattened as NCHW
                    n, k = place // DIM, place % DIM
                capsules[:, n, k] = maps[:, y, x, channel]
    return capsules


@pytest.mark.parametrize("order", ["position_major", "type_major", "flat"])
def test_capsules_are_cut_in_the_documented_order(order):
    layer = primary(order=order)
    features = jnp.asarray(draw(BATCH, HEIGHT + 1, WIDTH + 1, 3))
    s = layer.project(features)
    assert layer.num_capsules == HEIGHT * WIDTH * TYPES
    np.testing.assert_array_equal(s, cut(np.asarray(layer.conv(features)), order))


def test_orders_differ_and_the_default_is_position_major():
    features = jnp.asarray(draw(BATCH, HEIGHT + 1, WIDTH + 1, 3))
    default, *others = (
        primary(**order).project(features)
        for order in ({}, {"order": "position_major"}, {"order": "type_major"}, {"order": "flat"})
    )
    same, *different = others
    np.testing.assert_array_equal(default, same)
    assert all((default != other).any() for other in different)


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({}, squash),
        ({"squash": Squash("capsules", 1e-8)}, Squash("capsules", 1e-8)),
        ({"squash": {"axis": "element"}}, Squash("element")),
        ({"squash": jnp.tanh}, jnp.tanh),
    ],
)
def test_primary_capsules_are_squashed_projections(options, function):
    layer = primary(**options)
    features = jnp.asarray(draw(BATCH, HEIGHT + 1, WIDTH + 1, 3))
    capsules = layer(features)
    np.testing.assert_array_equal(capsules.pose, function(layer.project(features)))
    np.testing.assert_array_equal(capsules.activation, norm(capsules.pose))


def test_a_depthwise_capsule_is_made_of_its_own_channels_alone():
    layer = PrimaryCaps(
        (HEIGHT, WIDTH, TYPES * DIM),
        TYPES,
        DIM,
        kernel_size=HEIGHT,
        depthwise=True,
        rngs=nnx.Rngs(0),
    )
    layer.conv.bias[...] = jnp.asarray(draw(TYPES * DIM))
    features = draw(BATCH, HEIGHT, WIDTH, TYPES * DIM, seed=1)
    kernel, bias = np.asarray(layer.conv.kernel[...]), np.asarray(layer.conv.bias[...])
    assert kernel.shape == (HEIGHT, HEIGHT, 1, TYPES * DIM)
    positions = WIDTH - HEIGHT + 1
    s = np.stack(
        [
            (features[:, :, x : x + HEIGHT].astype(np.float64) * kernel[:, :, 0]).sum((1, 2)) + bias
            for x in range(positions)
        ],
        axis=1,
    ).reshape(BATCH, positions * TYPES, DIM)
    capsules = layer(jnp.asarray(features))
    expected = squash(jnp.asarray(s, jnp.float32))
    assert_close(capsules.pose, expected, reduction_length=HEIGHT**2)


def test_coarse_primary_capsules_have_coarse_poses_and_exact_activations():
    capsules = primary(dtype=jnp.bfloat16)(jnp.asarray(draw(BATCH, HEIGHT + 1, WIDTH + 1, 3)))
    assert capsules.pose.dtype == jnp.bfloat16
    assert capsules.activation.dtype == jnp.float32


@pytest.mark.parametrize("activation", ["sigmoid", "logit", "length", "one"])
def test_capsules_on_a_grid_are_a_convolution(activation):
    primary = ConvPrimaryCaps(
        (5, 6, 3),
        2,
        4,
        kernel_size=3,
        stride=2,
        padding="SAME",
        activation=activation,
        squash=Squash() if activation == "length" else None,
        rngs=nnx.Rngs(0),
    )
    features = jnp.asarray(draw(BATCH, 5, 6, 3))
    below = primary(features)
    assert below.pose.shape == (BATCH, *primary.output_shape) == (BATCH, 3, 3, 2, 4)
    maps = jax.lax.conv_general_dilated(
        features,
        primary.pose.kernel[...],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    pose = maps[..., :8].reshape(BATCH, 3, 3, 2, 4)
    expected = {
        "sigmoid": lambda: jax.nn.sigmoid(maps[..., 8:]),
        "logit": lambda: maps[..., 8:],
        "length": lambda: norm(Squash()(pose)),
        "one": lambda: jnp.ones((BATCH, 3, 3, 2)),
    }[activation]()
    assert_close(below.activation, expected, reduction_length=27)
    assert_close(
        below.pose, Squash()(pose) if activation == "length" else pose, reduction_length=27
    )


def test_primary_activations_start_where_they_are_told_to():
    primary = ConvPrimaryCaps(
        (5, 6, 3),
        2,
        4,
        activation_offset=-1.0,
        use_bias=False,
        kernel_init=nnx.initializers.ones,
        rngs=nnx.Rngs(0),
    )
    assert primary.pose.bias is None
    features = jnp.asarray(draw(BATCH, 5, 6, 3))
    below, total = primary(features), features.sum(-1, keepdims=True)
    assert_close(below.activation, jax.nn.sigmoid(jnp.repeat(total, 2, -1) - 1), reduction_length=3)
    assert_close(below.pose[..., 0, :], jnp.repeat(total, 4, -1), reduction_length=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: primary(order="C"), "unknown order 'C', choose from: position_major, type_major"),
        (lambda: primary(squash="element"), "squash must be a Squash or a dict of its fields"),
        (lambda: primary(stride=0), "stride must be an integer of at least 1, not 0"),
        (
            lambda: PrimaryCaps((4, 4, 1), 0, 4, kernel_size=2, rngs=nnx.Rngs(0)),
            "types must be an integer of at least 1, not 0",
        ),
        (
            lambda: primary(depthwise=True),
            "4 types of depthwise capsules of 6 need as many channels as their product, 24, not 3",
        ),
        (lambda: primary(depthwise=1), "depthwise must be True or False, not 1"),
        (
            lambda: PrimaryCaps((4, 2, 1), 4, 4, kernel_size=3, rngs=nnx.Rngs(0)),
            "a 3x3 kernel does not fit on an input of 4x2",
        ),
        (
            lambda: ConvPrimaryCaps((4, 4, 1), 2, 4, activation="relu", rngs=nnx.Rngs(0)),
            "unknown activation 'relu', choose from: sigmoid, logit, length, one",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [PrimaryCaps, ConvPrimaryCaps])
def test_other_features_than_a_layer_is_made_for_are_refused(kind):
    layer = kind((6, 5, 3), 2, 4, kernel_size=2, rngs=nnx.Rngs(0))
    right = r"must be of shape \[batch, 6, 5, 3\], not"
    for shape, way_out in (
        ((6, 5, 3), r"x\[None\]"),
        ((2, 3, 6, 5), r"channels come last, give x.transpose\(0, 2, 3, 1\)"),
        ((2, 7, 5, 3), "make a network or layer for that shape"),
    ):
        with pytest.raises(ValueError, match=f"{right} .*: .*{way_out}"):
            layer(jnp.zeros(shape))
