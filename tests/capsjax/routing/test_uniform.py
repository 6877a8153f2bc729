"""Coupling that is uniform or drawn once; what holds of all routings is in test_family."""

import jax.numpy as jnp
import numpy as np

from capsjax import route, squash
from capsjax.routing import Random, Uniform
from tests.capsjax.routing.family import SIZES, built, draw
from tests.tolerance import assert_close


def test_drawn_coupling_is_a_softmax_of_the_logits_for_every_example():
    routing, (votes, activation, _) = built(Random(), SIZES), draw(2)
    logits = np.asarray(routing.drawn[...], np.float64)
    c = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    routed = route(routing, votes, activation)
    assert_close(routed.coupling, np.broadcast_to(c, routed.coupling.shape), dtype=np.float32)
    v = squash(jnp.einsum("ij,bijd->bjd", c, votes))
    assert_close(routed.pose, v, reduction_length=SIZES.in_capsules)


def test_every_layer_and_seed_draws_its_own_with_the_deviation():
    sizes = SIZES._replace(in_capsules=2_000, out_capsules=5)
    one, other = (
        np.asarray(built(Random(deviation=2.0), sizes, seed=s).drawn[...]) for s in (0, 1)
    )
    assert not np.array_equal(one, other)
    for logits in (one, other):
        assert abs(logits.std() / 2 - 1) < 4 / np.sqrt(2 * logits.size)  # 4 deviations
        assert abs(logits.mean()) < 4 * 2 / np.sqrt(logits.size)


def test_the_narrower_the_drawn_logits_the_nearer_to_uniform():
    votes, activation, _ = draw(2)
    expected = route(Uniform(), votes, activation)
    found = route(built(Random(deviation=1e-9), SIZES), votes, activation)
    assert_close(found.pose, expected.pose, reduction_length=SIZES.in_capsules)
