"""What one sees inside of a routing, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import (
    Capsules,
    DenseCaps,
    DynamicRouting,
    Routed,
    agreement,
    coupling_entropy,
    dead_share,
    inspect_layer,
    iterations_of,
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
    votes, routed = iterations_of(layer, below)
    assert_close(votes, layer.votes(pose))
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


def test_a_routing_that_shows_nothing_is_told():
    def mean(votes, activation):
        pose = votes.mean(0)
        return Routed(pose, norm(pose), jnp.ones(votes.shape[:2]))

    layer = DenseCaps(I, K, J, D, routing=mean, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="function has no trace: it cannot show its work"):
        inspect_layer(layer, Capsules(draw(B, I, K), jnp.ones((B, I))))
