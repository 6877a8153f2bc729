"""Self-attention routing against a loop in float64 NumPy, and what its prior does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, Squash, create_routing, route, trace
from capsjax.capsules import ExponentialSquash
from capsjax.routing import SelfAttention, SelfAttentionTrace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree, built
from tests.tolerance import assert_close

B, I, J, D = 4, 6, 3, 5  # noqa: E741
TERMS = I * I * D
SIZES = Sizes(I, 4, J, D)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def softmax(a):
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def numpy_squash(s, squash):
    n = np.sqrt((s**2).sum(axis=-1, keepdims=True))
    if isinstance(squash, ExponentialSquash):
        return (1 - 1 / (np.exp(n) + squash.epsilon)) * s / (n + squash.epsilon)
    return n**2 / (1 + n**2) * s / (n + squash.epsilon)


def numpy_trace(votes, prior, squash=ExponentialSquash()):  # noqa: B008
    """One example `[I, J, D]`: the paper's matrices, one of self-attention for each `j`."""
    a = np.empty((I, J), votes.dtype)
    for j in range(J):
        attention = votes[:, j] @ votes[:, j].T / np.sqrt(D)
        a[:, j] = attention.sum(axis=1)
    c = softmax(a)
    c_b = c + prior
    s = np.stack([votes[:, j].T @ c_b[:, j] for j in range(J)])
    return SelfAttentionTrace(a, c, c_b, s, numpy_squash(s, squash))


def build(**options):
    routing = SelfAttention(**options).build(SIZES, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    return nnx.split(routing)


@functools.partial(jax.jit, static_argnums=0)
def routed_and_traced(graphdef, parameters, votes):
    routing, ones = nnx.merge(graphdef, parameters), jnp.ones(votes.shape[:2], votes.dtype)
    return route(routing, votes, ones), trace(routing, votes, ones)


@pytest.mark.parametrize("squash", [ExponentialSquash(), Squash(epsilon=0.3)], ids=str)
def test_it_is_a_plain_loop(squash):
    votes, prior = draw(B, I, J, D), 0.3 * draw(I, J, seed=1)
    graphdef, parameters = build(squash=squash)
    parameters["prior"][...] = jnp.asarray(prior, jnp.float32)
    routed, traced = routed_and_traced(graphdef, parameters, jnp.asarray(votes, jnp.float32))
    expected = [numpy_trace(example, prior, squash) for example in votes]
    stacked = SelfAttentionTrace(*(np.stack(x)[:, None] for x in zip(*expected, strict=True)))
    assert_traces_agree(traced, stacked, TERMS, "float32")
    pose = np.stack([e.v for e in expected])
    assert_close(routed.pose, pose, dtype="float32", reduction_length=TERMS)
    lengths = np.linalg.norm(pose, axis=-1)
    assert_close(routed.activation, lengths, dtype="float32", reduction_length=TERMS)
    np.testing.assert_array_equal(routed.coupling, traced.c_b[:, 0])


def test_coupling_sums_to_one_but_for_the_prior():
    votes = jnp.asarray(draw(B, I, J, D), jnp.float32)
    graphdef, parameters = build()
    assert not np.any(parameters["prior"][...])
    coupling = routed_and_traced(graphdef, parameters, votes)[0].coupling
    assert_close(coupling.sum(axis=-1), np.ones((B, I)), dtype="float32", reduction_length=J)
    prior = draw(I, J, seed=1)
    parameters["prior"][...] = jnp.asarray(prior, jnp.float32)
    moved = routed_and_traced(graphdef, parameters, votes)[0].coupling
    # After the softmax: each coefficient moves by its own prior, and by nothing else.
    difference = np.asarray(moved, np.float64) - np.asarray(coupling, np.float64)
    expected = np.broadcast_to(prior, (B, I, J))
    assert_close(difference, expected, dtype="float32", reduction_length=J)
    assert (moved < 0).any()


def test_gradients_flow_through_the_attention():
    def ours(votes, prior):
        routing = built(SelfAttention(), SIZES, "float64")
        routing.prior[...] = prior
        return routing(votes, jnp.ones(I))

    def loop(votes, prior):
        v = numpy_trace(votes, prior).v
        return v, np.sqrt((v**2).sum(-1))

    arguments = {"votes": draw(I, J, D), "prior": 0.3 * draw(I, J, seed=2)}
    assert_slopes_agree(ours, loop, arguments, TERMS)


def test_a_softmax_over_all_parents_takes_the_place_of_that_over_the_parents_in_sight():
    routing = built(SelfAttention(), SIZES)
    votes = jnp.asarray(draw(I, J, D), jnp.float32)

    def halved(logits):
        return jax.nn.softmax(logits, axis=-1) / 2

    alone, shared = (routing(votes, jnp.ones(I)), routing(votes, jnp.ones(I), softmax=halved))
    assert_close(shared.coupling, alone.coupling / 2, reduction_length=J)


def test_the_prior_has_the_dtype_of_the_parameters():
    routing = SelfAttention().build(SIZES, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert routing.prior.dtype == jnp.bfloat16
    assert route(routing, jnp.ones((B, I, J, D)), jnp.ones((B, I))).pose.dtype == jnp.float32


def test_options_as_json_has_them():
    assert create_routing("self-attention", squash="exponential") == SelfAttention()
    assert create_routing("self-attention", squash={"epsilon": 0.1}) == SelfAttention(
        Squash("pose", 0.1)
    )


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="squash must be a Squash or a dict of its fields, not 1"):
        SelfAttention(squash=1)
    routing = built(SelfAttention(), SIZES)
    with pytest.raises(ValueError, match="for in_capsules=6 cannot route votes of shape"):
        route(routing, jnp.ones((B, I + 1, J, D)), jnp.ones((B, I + 1)))


def test_the_sum_of_votes_may_be_more_than_float16_holds():
    routing = SelfAttention().build(
        SIZES._replace(in_capsules=2000), param_dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    votes = jnp.full((1, 2000, J, D), 40, jnp.float16)
    assert jnp.isfinite(route(routing, votes, jnp.ones((1, 2000))).activation).all()
