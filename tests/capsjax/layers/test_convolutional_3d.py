"""Votes of whole types against NumPy's loops, and what is routed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, Conv3dCaps, DynamicRouting, GridShape, create_routing, norm, route
from tests.tolerance import assert_close

GRID = GridShape(height=5, width=4, types=3, dim=2)
BATCH = 2


def layer(**options):
    options = {"kernel_size": 3, "types": 2, "dim": 4, "routing": DynamicRouting(2)} | options
    return Conv3dCaps(GRID, **options, rngs=nnx.Rngs(0))


def capsules():
    pose = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, *GRID)), jnp.float32)
    return Capsules(pose, norm(pose))


def votes_in_numpy(conv, pose, stride, padding):
    """`[batch, B, P, Q, types, dim]`, vote by vote."""
    kernel = np.asarray(conv.conv.kernel[...], np.float64)
    (top, bottom), (left, right) = padding
    padded = np.pad(
        np.asarray(pose, np.float64), [(0, 0), (top, bottom), (left, right), (0, 0), (0, 0)]
    )
    size = len(kernel)
    height, width, types, dim = conv.output_shape
    votes = np.zeros((BATCH, GRID.types, height, width, types * dim))
    for y in range(height):
        for x in range(width):
            seen = padded[:, y * stride : y * stride + size, x * stride : x * stride + size]
            votes[:, :, y, x] = np.einsum("byxik,yxkd->bid", seen, kernel)
    return votes.reshape(BATCH, GRID.types, height, width, types, dim)


@pytest.mark.parametrize(
    ("stride", "padding", "grid", "pads"),
    [
        (1, "VALID", (3, 2), ((0, 0), (0, 0))),
        (1, "SAME", (5, 4), ((1, 1), (1, 1))),
        (2, "SAME", (3, 2), ((1, 1), (0, 1))),
    ],
)
def test_every_type_votes_for_all_positions_with_the_same_filters(stride, padding, grid, pads):
    conv, below = layer(stride=stride, padding=padding), capsules()
    assert conv.output_shape == (*grid, 2, 4)
    above, coupling = conv(below)
    votes = votes_in_numpy(conv, below.pose, stride, pads)
    assert coupling.shape == votes.shape[:-1]
    flat = jnp.asarray(votes.reshape(BATCH, GRID.types, -1, 4), jnp.float32)
    assert_close(conv.votes(below.pose), flat, reduction_length=18)
    routed = route(DynamicRouting(2), flat, jnp.zeros((BATCH, GRID.types)))
    assert_close(above.pose.reshape(routed.pose.shape), routed.pose, reduction_length=54)
    assert_close(above.activation, norm(above.pose), reduction_length=4)
    assert_close(coupling.reshape(routed.coupling.shape), routed.coupling, reduction_length=54)


def test_a_type_shares_itself_out_over_all_types_and_positions_jointly():
    _, coupling = layer()(capsules())
    total = jnp.sum(coupling, axis=(2, 3, 4))
    assert_close(total, jnp.ones_like(total), reduction_length=12)
    assert np.abs(coupling - 1 / 12).max() > 0.001


def test_a_routing_that_asks_sees_types_as_a_whole():
    asked = {}

    def spy(votes, activation, *, pose):
        asked.update(activation=activation, pose=pose)
        return DynamicRouting(1)(votes, activation)

    below = capsules()
    jax.jit(lambda below: layer(routing=spy)(below))(below)
    assert asked["pose"].shape == (GRID.types, 5 * 4 * 2)
    assert asked["activation"].shape == (GRID.types,)


def test_a_routing_with_parameters_is_built_for_types_and_all_positions():
    conv = layer(routing=create_routing("dynamic-prior"))
    assert conv.routing.prior.shape == (GRID.types, 3 * 2 * 2)


def test_coarse_votes_and_exact_capsules():
    conv = layer(dtype=jnp.bfloat16)
    assert conv.votes(capsules().pose).dtype == jnp.bfloat16
    above, coupling = conv(capsules())
    assert above.pose.dtype == above.activation.dtype == coupling.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 6}, "a 6x6 window does not fit on a grid of 5x4"),
        ({"types": 0}, "types must be an integer of at least 1, not 0"),
        ({"stride": 0}, "stride must be an integer of at least 1, not 0"),
        ({"padding": "FULL"}, "unknown padding 'FULL', choose from: VALID, SAME"),
        ({"routing": "dynamic"}, r"such as create_routing\('dynamic'\), not 'dynamic'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)
