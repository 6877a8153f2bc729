"""The capsule layers against independent NumPy, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import (
    Capsules,
    ConvFeatures,
    Decoder,
    DenseCaps,
    DynamicRouting,
    LearnedPrior,
    PrimaryCaps,
    PriorRouting,
    Squash,
    norm,
    squash,
    trace,
)
from tests.tolerance import assert_close

BATCH, HEIGHT, WIDTH, TYPES, DIM = 2, 3, 5, 4, 6


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def primary(**options):
    """Primary capsules on a grid of HEIGHT x WIDTH positions."""
    return PrimaryCaps(
        (HEIGHT + 1, WIDTH + 1, 3), TYPES, DIM, kernel_size=2, rngs=nnx.Rngs(0), **options
    )


def test_conv_features_are_a_rectified_convolution():
    layer = ConvFeatures((7, 6, 3), 5, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
    layer.conv.bias[...] = jnp.asarray(draw(5))
    images = draw(2, 7, 6, 3, seed=1)
    kernel, bias = np.asarray(layer.conv.kernel[...]), np.asarray(layer.conv.bias[...])
    assert layer.output_shape == (3, 2, 5)
    expected = np.zeros((2, 3, 2, 5))
    for y in range(3):
        for x in range(2):
            window = images[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            expected[:, y, x] = np.einsum("nabc,abcf->nf", window, kernel) + bias
    assert_close(layer(jnp.asarray(images)), np.maximum(expected, 0), reduction_length=27)


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


def test_votes_are_matrices_times_poses():
    layer = DenseCaps(7, 4, 3, 5, routing=DynamicRouting(), rngs=nnx.Rngs(0))
    pose = draw(BATCH, 7, 4)
    kernel = np.asarray(layer.kernel[...], np.float64)
    votes = np.zeros((BATCH, 7, 3, 5))
    for i in range(7):
        for j in range(3):
            votes[:, i, j] = pose[:, i].astype(np.float64) @ kernel[i, j].T
    assert_close(layer.votes(jnp.asarray(pose)), votes, dtype="float32", reduction_length=4)


def test_dense_capsules_route_their_votes():
    layer = DenseCaps(7, 4, 3, 5, routing=DynamicRouting(iterations=1), rngs=nnx.Rngs(0))
    pose = jnp.asarray(draw(BATCH, 7, 4))
    capsules, coupling = layer(Capsules(pose, norm(pose)))
    assert_close(coupling, np.full((BATCH, 7, 3), 1 / 3), dtype="float32")
    expected = squash(jnp.sum(layer.votes(pose), axis=1) / 3)
    assert_close(capsules.pose, expected, reduction_length=7)
    np.testing.assert_array_equal(capsules.activation, norm(capsules.pose))


def test_without_matrices_a_capsule_votes_for_its_own_pose():
    layer = DenseCaps(7, 4, 3, 4, routing=DynamicRouting(), transform=None, rngs=nnx.Rngs(0))
    assert not nnx.state(layer, nnx.Param)
    pose = draw(BATCH, 7, 4)
    np.testing.assert_array_equal(layer.votes(jnp.asarray(pose)), np.stack([pose] * 3, axis=2))
    capsules, _ = layer(Capsules(jnp.asarray(pose), norm(jnp.asarray(pose))))
    expected = squash(jnp.sum(jnp.asarray(pose), axis=1, keepdims=True) / 3)
    assert_close(capsules.pose, jnp.tile(expected, (1, 3, 1)), reduction_length=7)


def test_a_routing_without_sizes_is_built_for_the_layer():
    layer = DenseCaps(7, 4, 3, 5, routing=LearnedPrior(), rngs=nnx.Rngs(0))
    assert isinstance(layer.routing, PriorRouting)
    assert layer.routing.prior.shape == (7, 3)


def test_the_layer_runs_the_implementation_that_it_is_given():
    def program(implementation):
        layer = DenseCaps(
            7, 4, 3, 5, routing=DynamicRouting(), implementation=implementation, rngs=nnx.Rngs(0)
        )
        capsules = Capsules(jnp.ones((BATCH, 7, 4)), jnp.ones((BATCH, 7)))
        return jax.jit(lambda: layer(capsules)).lower().as_text()

    votes = f"tensor<{BATCH}x7x3x5xf32>"
    assert votes in program("xla")
    assert votes not in program("recompute")


def test_votes_are_computed_in_the_layers_dtype():
    layer = DenseCaps(
        7,
        4,
        3,
        5,
        routing=DynamicRouting(),
        implementation="xla",
        dtype="bfloat16",
        rngs=nnx.Rngs(0),
    )
    pose = jnp.asarray(draw(BATCH, 7, 4))
    capsules, _ = layer(Capsules(pose, norm(pose)))
    assert layer.votes(pose).dtype == jnp.bfloat16
    expected = trace(DynamicRouting(), layer.votes(pose), jnp.ones(pose.shape[:2])).v[:, -1]
    assert_close(capsules.pose, expected, reduction_length=7)


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
    masked = (pose * mask[:, :, None]).astype(np.float64)
    inputs = masked.reshape(BATCH, 12) if combine == "concat" else masked.sum(axis=1)
    images = layer(jnp.asarray(pose), jnp.asarray(mask))
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
            "the capsule convolution with a 3x3 kernel does not fit on an input of 4x2",
        ),
        (
            lambda: ConvFeatures((4, 4, 1), 4, kernel_size=5, rngs=nnx.Rngs(0)),
            "the first convolution with a 5x5 kernel does not fit on an input of 4x4",
        ),
        (
            lambda: ConvFeatures((4, 4, 1), 1.5, kernel_size=3, rngs=nnx.Rngs(0)),
            "features must be an integer of at least 1, not 1.5",
        ),
        (
            lambda: DenseCaps(4, 4, -1, 4, routing=DynamicRouting(), rngs=nnx.Rngs(0)),
            "out_capsules must be an integer of at least 1, not -1",
        ),
        (
            lambda: DenseCaps(
                4, 4, 4, 5, routing=DynamicRouting(), transform=None, rngs=nnx.Rngs(0)
            ),
            "transform=None leaves poses as they are, so out_dim is in_dim, here 5 and 4",
        ),
        (
            lambda: DenseCaps(4, 4, 4, 4, routing="dynamic", rngs=nnx.Rngs(0)),
            r"such as create_routing\('dynamic'\), not 'dynamic'",
        ),
        (
            lambda: DenseCaps(
                4, 4, 4, 4, routing=LearnedPrior(), implementation="recompute", rngs=nnx.Rngs(0)
            ),
            "'recompute' computes a DynamicRouting .*, not PriorRouting, for which there is: xla",
        ),
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
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_reach_every_parameter_of_a_stack_of_layers():
    layers = nnx.List(
        [
            primary(),
            DenseCaps(
                HEIGHT * WIDTH * TYPES, DIM, 3, 5, routing=DynamicRouting(), rngs=nnx.Rngs(0)
            ),
            Decoder(3, 5, (2, 2, 1), hidden=(6,), rngs=nnx.Rngs(0)),
        ]
    )
    graphdef, params = nnx.split(layers)
    features = jnp.asarray(draw(BATCH, HEIGHT + 1, WIDTH + 1, 3))

    @jax.jit
    @jax.grad
    def gradient_of(params):
        primary_caps, dense_caps, decoder = nnx.merge(graphdef, params)
        capsules, _ = dense_caps(primary_caps(features))
        return jnp.sum(decoder(capsules.pose, jnp.ones((BATCH, 3))) ** 2)

    gradients = jax.tree.leaves(gradient_of(params))
    assert gradients
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
