"""k-means routing against a plain loop in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Squash, route, trace
from capsjax.routing import KMeans
from tests.tolerance import assert_close

B, I, J, D = 3, 6, 4, 5  # noqa: E741


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def softmax(b):
    e = np.exp(b - b.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def numpy_trace(votes, iterations, similarity="dot"):
    """Every iteration on one example `[I, J, D]`: lists of `b`, `c` and `s`."""
    steps, s = [], votes.sum(axis=0) / votes.shape[1]
    for _ in range(iterations):
        b = np.zeros(votes.shape[:2])
        for i, j in np.ndindex(b.shape):
            b[i, j] = votes[i, j] @ s[j] / np.linalg.norm(s[j])
            if similarity == "cosine":
                b[i, j] /= np.linalg.norm(votes[i, j])
        c = softmax(b)
        s = sum(c[i][:, None] * votes[i] for i in range(len(votes)))
        steps.append((b, c, s))
    return [np.stack(arrays) for arrays in zip(*steps, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def run(routing, votes):
    activation = jnp.ones(votes.shape[:2], votes.dtype)
    return route(routing, votes, activation), trace(routing, votes, activation)


@pytest.mark.parametrize(
    "options", [{"iterations": 1}, {}, {"similarity": "cosine", "iterations": 2}], ids=str
)
def test_every_iteration_is_that_of_a_plain_loop(options):
    votes = draw(B, I, J, D)
    routing = KMeans(**options)
    routed, traced = run(routing, jnp.asarray(votes, jnp.float32))
    n = I * D * routing.iterations
    for index, example in enumerate(votes):
        b, c, s = numpy_trace(example, routing.iterations, routing.similarity)
        for ours, theirs in ((traced.b, b), (traced.c, c), (traced.s, s)):
            assert_close(ours[index], theirs, dtype="float32", reduction_length=n)
        length = np.linalg.norm(s[-1], axis=1, keepdims=True)
        v = length / (1 + length**2) * s[-1]
        assert_close(routed.pose[index], v, dtype="float32", reduction_length=n)


def test_coupling_sums_to_one_over_the_outputs():
    _, traced = run(KMeans(), jnp.asarray(draw(B, I, J, D), jnp.float32))
    total = np.asarray(traced.c).sum(-1)
    assert_close(total, np.ones(total.shape), dtype="float32", reduction_length=J)


def test_logits_do_not_add_up():
    votes = jnp.asarray(np.tile(draw(B, 1, J, D), (1, I, 1, 1)), jnp.float32)
    _, traced = run(KMeans(), votes)
    # All votes agree with their centre from the start, so nothing moves any more.
    assert_close(traced.b[:, 2], traced.b[:, 0], reduction_length=I * D)
    lengths = np.linalg.norm(np.asarray(votes[:, 0], np.float64), axis=-1)
    assert_close(traced.b[:, 0, 0], lengths, dtype="float32", reduction_length=I * D)


def test_a_cosine_does_not_see_how_long_votes_are():
    votes = draw(B, I, J, D)
    longer = votes * np.random.default_rng(1).uniform(0.1, 9, (B, I, J, 1))
    first = [run(KMeans(1, "cosine"), jnp.asarray(v, jnp.float32))[1].b for v in (votes, 2 * votes)]
    assert_close(first[1], first[0], reduction_length=D)
    dot = [run(KMeans(1), jnp.asarray(v, jnp.float32))[1].b for v in (votes, longer)]
    assert np.abs(dot[0] - dot[1]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"similarity": "euclid"}, "unknown similarity 'euclid', choose from: dot, cosine"),
        ({"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**options)


def test_the_squash_is_what_one_gives():
    votes = jnp.asarray(draw(B, I, J, D), jnp.float32)
    routed, traced = run(KMeans(squash=Squash("element")), votes)
    assert_close(routed.pose, Squash("element")(traced.s[:, -1]))
