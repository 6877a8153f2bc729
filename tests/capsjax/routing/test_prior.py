"""A learned prior: zero is no prior, and gradients reach it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import CapsNet, Sizes, route, trace
from capsjax.routing import Dynamic, DynamicPrior
from tests.capsjax.routing.family import built
from tests.tolerance import assert_close

B, I, J, D = 3, 6, 4, 5  # noqa: E741


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def make(**options):
    return built(DynamicPrior(**options), Sizes(I, 8, J, D))


def test_a_prior_starts_at_zero_and_routes_as_if_there_were_none():
    routing, votes = make(iterations=4), draw(B, I, J, D)
    assert routing.prior.shape == (I, J)
    assert not np.any(routing.prior[...])
    ours = route(routing, votes, jnp.ones((B, I)))
    theirs = route(Dynamic(4), votes, jnp.ones((B, I)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_logits_start_from_the_prior_in_every_example():
    routing, votes = make(iterations=2), draw(B, I, J, D)
    prior = draw(I, J, seed=1)
    routing.prior[...] = prior
    traced = trace(routing, votes, jnp.ones((B, I)))
    routed = route(routing, votes, jnp.ones((B, I)))
    np.testing.assert_array_equal(traced.b[:, 0], np.broadcast_to(prior, (B, I, J)))
    e = np.exp(np.asarray(prior, np.float64))
    first = e / e.sum(axis=1, keepdims=True)
    assert_close(traced.c[1, 0], first, dtype="float32", reduction_length=J)
    expected = np.einsum("ij,nijd->njd", first, np.asarray(votes, np.float64))
    assert_close(traced.s[:, 0], expected, dtype="float32", reduction_length=I)
    assert_close(traced.v[:, -1], routed.pose)


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_reach_the_prior(detach):
    routing, votes = make(iterations=3, detach=detach), draw(B, I, J, D)
    graphdef, params = nnx.split(routing)

    @jax.jit
    @jax.grad
    def gradient_of(params):
        return jnp.sum(route(nnx.merge(graphdef, params), votes, jnp.ones((B, I))).pose)

    gradient = gradient_of(params)["prior"][...]
    assert np.abs(gradient).max() > 1e-3


def test_a_prior_is_built_for_the_capsules_of_its_network_and_trains_with_it():
    model = CapsNet(
        image_shape=(9, 9, 1),
        num_classes=J,
        conv_features=4,
        conv_kernel=3,
        primary_types=2,
        primary_dim=3,
        primary_kernel=3,
        routing=DynamicPrior(4),
        decoder_hidden=None,
        rngs=nnx.Rngs(0),
    )
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    assert params["class_caps"]["routing"]["prior"].shape == (3 * 3 * 2, J)

    def loss(params):
        model = nnx.merge(graphdef, params, nnx.to_pure_dict(rest))
        return jnp.sum(model(draw(B, 9, 9, 1)).lengths[:, 0])

    gradient = jax.jit(jax.grad(loss))(params)["class_caps"]["routing"]["prior"]
    assert np.abs(gradient).max() > 0


def test_the_prior_has_the_dtype_of_the_parameters():
    routing = DynamicPrior().build(Sizes(I, 8, J, D), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert routing.prior.dtype == jnp.bfloat16
    assert route(routing, draw(B, I, J, D), jnp.ones((B, I))).pose.dtype == jnp.float32


def test_votes_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="for in_capsules=6 cannot route votes of shape"):
        route(make(), draw(B, I + 1, J, D), jnp.ones((B, I + 1)))
