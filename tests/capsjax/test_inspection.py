"""What one sees inside of a routing, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, ConvCaps, DenseCaps, GridShape, Routed, inspect_layer, norm
from capsjax.inspection import coupling_entropy, dead_share, inspect_iterations, vote_cosine
from capsjax.routing import Dynamic
from tests.tolerance import assert_close

B, I, K, J, D = 3, 40, 4, 3, 6  # noqa: E741
GRID = GridShape(4, 5, 2, K)
LAYERS = {
    "dense": (DenseCaps, (I, K, J, D), {}),
    "conv": (ConvCaps, (GRID, J, D), {"kernel_size": 3, "competition": "patch"}),
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_entropy_from_undecided_to_decided():
    coupling = jnp.asarray([[0.25] * 4, [1, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0], [2, 2, 0, 0]])
    expected = [np.log(4), 0, 0, np.log(2), np.log(2)]
    assert_close(coupling_entropy(coupling), np.asarray(expected, np.float32), reduction_length=4)
    signs = jnp.asarray([[1.0, -1, 1, -1]])  # SelfAttention may send less than nothing
    np.testing.assert_array_equal(coupling_entropy(signs * coupling), coupling_entropy(coupling))


def test_the_coupled_mean_of_cosines():
    votes, pose = draw(I, J, D), draw(J, D, seed=1)
    coupling = jnp.abs(draw(I, J, seed=2))
    v, p = np.asarray(votes, np.float64), np.asarray(pose, np.float64)
    cosines = np.einsum("ijd,jd->ij", v, p)
    cosines /= np.linalg.norm(v, axis=-1) * np.linalg.norm(p, axis=-1)
    expected = (np.asarray(coupling) * cosines).sum() / np.asarray(coupling).sum()
    routed = Routed(pose, norm(pose), coupling)
    assert_close(vote_cosine(votes, routed), np.float32(expected), reduction_length=I * J * D)
    same = Routed(votes[0], norm(votes[0]), coupling)
    alike = jnp.broadcast_to(votes[:1], votes.shape)
    assert_close(vote_cosine(alike, same), np.float32(1), reduction_length=D)
    signs = jnp.sign(draw(I, J, seed=3))
    signed = same._replace(coupling=signs * coupling)
    assert_close(vote_cosine(signs[..., None] * alike, signed), np.float32(1), reduction_length=D)
    assert vote_cosine(jnp.zeros_like(votes), routed) == 0
    for scale in (1e-30, 1e25):  # whose squares are out of range
        scaled = Routed(scale * pose, norm(pose), coupling)
        assert_close(vote_cosine(scale * votes, scaled), np.float32(expected), reduction_length=999)


def test_dead_is_who_is_there_for_nobody():
    activation = jnp.asarray([[0.0, 0.9, 0.02], [0.001, 0.0, 0.0]])
    assert_close(dead_share(activation), np.float32(1 / 3))
    assert_close(dead_share(activation, threshold=0.02), np.float32(2 / 3))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_shows_every_iteration_and_every_position_counts_alike(name):
    kind, sizes, options = LAYERS[name]
    layer = kind(*sizes, routing=Dynamic(3), **options, rngs=nnx.Rngs(0))
    pose = 3 * draw(B, *(GRID if name == "conv" else (I, K)))

    @nnx.jit
    def run(layer, below):
        made = [layer.iterate(below)]
        for _ in range(2):
            made.append(layer.iterate(below, made[-1].state))
        alone, at_once = inspect_layer(layer, below), inspect_iterations(layer, [below] * 3, made)
        return layer.iterations(below), layer.votes(below.pose), alone, at_once

    routed, votes, found, at_once = run(layer, Capsules(pose, norm(pose)))
    for field in found._fields:
        # Cosines and changes of what is rounded: sums over all votes.
        assert_close(getattr(at_once, field), getattr(found, field), reduction_length=votes.size)

    axis = votes.ndim - 3
    pose, coupling = (
        np.moveaxis(np.asarray(array, np.float64), axis, 0)
        for array in (routed.pose, routed.coupling)
    )
    n = votes.size
    others = tuple(range(1, coupling.ndim - 1))
    entropies = -(coupling * np.log(coupling)).sum(-1)
    assert_close(found.entropy, entropies.mean(others), dtype="float32", reduction_length=n)
    assert found.entropy[2] < found.entropy[0]
    assert found.vote_cosine[2] > found.vote_cosine[0]
    changes = np.abs(coupling[1:] - coupling[:-1]).mean((*others, -1))
    assert_close(found.coupling_change, changes, dtype="float32", reduction_length=n)
    moved = np.linalg.norm(pose[1:] - pose[:-1], axis=-1).mean(others)
    lengths = np.linalg.norm(pose[1:], axis=-1).mean(others)
    assert_close(found.pose_change, moved / lengths, dtype="float32", reduction_length=n)
    assert found.dead == 0
