"""What one sees inside of a routing, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import (
    Capsules,
    ClassCaps,
    Conv3dCaps,
    ConvCaps,
    DenseCaps,
    DynamicRouting,
    GridShape,
    InvertedAttention,
    Routed,
    agreement,
    coupling_entropy,
    dead_share,
    inspect_layer,
    inspect_steps,
    norm,
)
from tests.tolerance import assert_close

B, I, K, J, D = 3, 5, 4, 3, 6  # noqa: E741


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_entropy_from_undecided_to_decided():
    coupling = jnp.asarray([[0.25] * 4, [1, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0], [2, 2, 0, 0]])
    expected = [np.log(4), 0, 0, np.log(2), np.log(2)]
    assert_close(coupling_entropy(coupling), np.asarray(expected, np.float32), reduction_length=4)


def test_agreement_is_the_coupled_mean_of_cosines():
    votes, pose = draw(I, J, D), draw(J, D, seed=1)
    coupling = jnp.abs(draw(I, J, seed=2))
    v, p = np.asarray(votes, np.float64), np.asarray(pose, np.float64)
    cosines = np.einsum("ijd,jd->ij", v, p)
    cosines /= np.linalg.norm(v, axis=-1) * np.linalg.norm(p, axis=-1)
    expected = (np.asarray(coupling) * cosines).sum() / np.asarray(coupling).sum()
    routed = Routed(pose, norm(pose), coupling)
    assert_close(agreement(votes, routed), np.float32(expected), reduction_length=I * J * D)
    same = Routed(votes[0], norm(votes[0]), coupling)
    assert_close(
        agreement(jnp.broadcast_to(votes[:1], votes.shape), same), np.float32(1), reduction_length=D
    )
    assert agreement(jnp.zeros_like(votes), routed) == 0


def test_dead_is_who_is_there_for_nobody():
    activation = jnp.asarray([[0.0, 0.9, 0.02], [0.001, 0.0, 0.0]])
    assert_close(dead_share(activation), np.float32(1 / 3))
    assert_close(dead_share(activation, threshold=0.02), np.float32(2 / 3))


def test_a_layer_shows_every_iteration():
    layer = DenseCaps(I, K, J, D, routing=DynamicRouting(3), rngs=nnx.Rngs(0))
    pose = 3 * draw(B, I, K)
    below = Capsules(pose, norm(pose))
    routed = layer.iterations(below)
    assert routed.pose.shape == (B, 3, J, D)
    above, coupling = layer(below)
    assert_close(routed.pose[:, -1], above.pose, reduction_length=I * D)
    found = inspect_layer(layer, below)
    c = np.asarray(routed.coupling, np.float64)
    assert_close(found.entropy[0], np.float32(np.log(J)), reduction_length=J)
    assert found.entropy[2] < found.entropy[0]
    assert found.agreement[2] > found.agreement[0]
    expected = np.abs(c[:, 1:] - c[:, :-1]).mean(axis=(0, 2, 3))
    assert_close(found.coupling_change, expected.astype(np.float32), reduction_length=B * I * J)
    assert found.pose_change.shape == (2,)
    assert found.dead == 0
    assert_close(coupling, routed.coupling[:, -1], reduction_length=I * D)


GRID = GridShape(4, 5, 2, K)
LAYERS = {
    "conv": (ConvCaps, {"kernel_size": 3}),
    "conv, by patch": (ConvCaps, {"kernel_size": 3, "competition": "patch", "padding": "SAME"}),
    "class": (ClassCaps, {"transform": "linear", "coordinates": False}),
    "conv 3d": (Conv3dCaps, {"kernel_size": 3}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_last_iteration_on_a_grid_is_what_the_layer_returns(name):
    kind, options = LAYERS[name]
    layer = kind(GRID, J, D, routing=DynamicRouting(3), rngs=nnx.Rngs(0), **options)
    pose = 3 * draw(B, *GRID)
    below = Capsules(pose, norm(pose))
    above, coupling = layer(below)
    routed, votes = layer.iterations(below), layer.votes(pose)
    leading, n_in = votes.shape[:-3], votes.shape[-3]
    assert routed.coupling.shape == (*leading, 3, *votes.shape[-3:-1])
    for all_of_them, last in ((routed.coupling, coupling), (routed.pose, above.pose)):
        seen = jnp.moveaxis(all_of_them, len(leading), 0)[-1]
        assert_close(seen.reshape(last.shape), last, reduction_length=n_in * D)


def test_every_position_counts_alike():
    layer = ConvCaps(
        GRID, J, D, kernel_size=3, competition="patch", routing=DynamicRouting(2), rngs=nnx.Rngs(0)
    )
    pose = 3 * draw(B, *GRID)
    below = Capsules(pose, norm(pose))
    found, routed = inspect_layer(layer, below), layer.iterations(below)
    entropies = np.asarray(coupling_entropy(routed.coupling), np.float64)  # [B, P, Q, R, I]
    expected = entropies.mean(axis=(0, 1, 2, 4)).astype(np.float32)
    assert_close(found.entropy, expected, reduction_length=entropies.size)
    first, second = np.moveaxis(np.asarray(routed.pose, np.float64), 3, 0)
    expected = np.linalg.norm(second - first, axis=-1).mean()
    expected /= np.linalg.norm(second, axis=-1).mean()
    assert_close(found.pose_change, np.float32([expected]), reduction_length=second.size)


def test_steps_show_what_a_layer_shows_alone():
    layer = DenseCaps(I, K, J, D, routing=InvertedAttention(iterations=3), rngs=nnx.Rngs(0))
    pose = draw(B, I, K)
    below = Capsules(pose, norm(pose))
    steps = [layer.step(below)]
    for _ in range(2):
        steps.append(layer.step(below, steps[-1].state))
    found, alone = inspect_steps(layer, [below] * 3, steps), inspect_layer(layer, below)
    for name in alone._fields:
        assert_close(getattr(found, name), getattr(alone, name), reduction_length=B * I * J * D)
    assert found.entropy[0] > found.entropy[2]


def test_a_routing_without_a_trace_has_what_it_comes_to_as_its_only_iteration():
    def mean(votes, activation):
        pose = votes.mean(0)
        return Routed(pose, norm(pose), jnp.ones(votes.shape[:2]))

    layer = DenseCaps(I, K, J, D, routing=mean, rngs=nnx.Rngs(0))
    below = Capsules(draw(B, I, K), jnp.ones((B, I)))
    found = layer.iterations(below)
    above, coupling = layer(below)
    assert_close(found.pose, above.pose[:, None], reduction_length=I * K)
    assert_close(found.coupling, coupling[:, None])
    assert inspect_layer(layer, below).entropy.shape == (1,)
