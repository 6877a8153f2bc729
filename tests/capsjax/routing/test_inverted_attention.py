"""Inverted attention against a loop in float64 NumPy, in one layer and in two at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, create_routing, route, trace
from capsjax.routing import InvertedAttention, InvertedAttentionTrace, RoutingInputs
from tests.capsjax.routing.family import assert_slopes_agree, built
from tests.tolerance import assert_close

B, I, J, D = 4, 6, 3, 5  # noqa: E741
SIZES = Sizes(I, 4, J, D)
TERMS = 3 * I * J * D
ONES = jnp.ones(I)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


PARAMETERS = {
    "scale": 1 + 0.3 * draw(D, seed=2),
    "bias": 0.3 * draw(D, seed=3),
    "presence_weight": draw(D, seed=4),
    "presence_bias": draw(1, seed=5),
}


def numpy_step(votes, poses, parameters, epsilon=1e-10, layer_norm_epsilon=1e-5):
    """Procedure 1 on one example `[I, J, D]`; `poses` is None in the first iteration."""
    a = np.zeros((I, J), np.result_type(votes, *parameters.values()))
    r = a + 1 / J
    if poses is not None:
        for i, j in np.ndindex(I, J):
            a[i, j] = poses[j] @ votes[i, j] / np.sqrt(D)
        e = np.exp(a)
        r = e / e.sum(axis=1, keepdims=True)
        r = r / (r.sum(axis=1, keepdims=True) + epsilon)
    s = sum(r[i][:, None] * votes[i] for i in range(I))
    centred = s - s.mean(axis=1, keepdims=True)
    p = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + layer_norm_epsilon)
    p = p * parameters["scale"] + parameters["bias"]
    logits = [pose @ parameters["presence_weight"] + parameters["presence_bias"][0] for pose in p]
    return InvertedAttentionTrace(a, r, s, p, 1 / (1 + np.exp(-np.array(logits))))


def numpy_trace(votes, iterations, parameters=PARAMETERS, **options):
    """Every iteration on one example."""
    steps = [numpy_step(votes, None, parameters, **options)]
    for _ in range(1, iterations):
        steps.append(numpy_step(votes, steps[-1].p, parameters, **options))
    return steps


@functools.cache
def build(**options):
    """What a routing is apart from its parameters."""
    sizes = Sizes(I, 4, J, D)
    made = create_routing("inverted-attention", **options)
    return nnx.split(made.build(sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0)))[0]


def bound(graphdef, parameters=PARAMETERS, dtype="float32"):
    state = {name: jnp.asarray(value, dtype) for name, value in parameters.items()}
    return nnx.merge(graphdef, state)


@functools.partial(jax.jit, static_argnums=0)
def routed_and_traced(graphdef, votes):
    routing, ones = bound(graphdef), jnp.ones(votes.shape[:2], votes.dtype)
    return route(routing, votes, ones), trace(routing, votes, ones)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 1},
        {"iterations": 2},
        {"iterations": 3},
        {"iterations": 3, "epsilon": 0.5, "layer_norm_epsilon": 0.1},
    ],
    ids=str,
)
def test_every_iteration_is_that_of_a_plain_loop(options):
    votes = draw(B, I, J, D)
    routed, traced = routed_and_traced(build(**options), jnp.asarray(votes, jnp.float32))
    examples = [numpy_trace(example, **options) for example in votes]
    for name in InvertedAttentionTrace._fields:
        expected = np.stack([[getattr(step, name) for step in steps] for steps in examples])
        ours = getattr(traced, name)
        assert ours.shape == expected.shape, name
        assert_close(ours, expected, dtype="float32", reduction_length=TERMS)
    last = [steps[-1] for steps in examples]
    for ours, name in zip(routed, ("p", "presence", "r"), strict=True):
        expected = np.stack([getattr(step, name) for step in last])
        assert_close(ours, expected, dtype="float32", reduction_length=TERMS)


def test_coupling_sums_to_one_over_one_and_the_epsilon_after_the_first_iteration():
    votes = jnp.asarray(draw(B, I, J, D), jnp.float32)
    total = routed_and_traced(build(iterations=3, epsilon=0.5), votes)[1].r.sum(axis=-1)
    expected = np.broadcast_to(np.array([1, 1 / 1.5, 1 / 1.5])[:, None], (B, 3, I))
    assert_close(total, expected, dtype="float32", reduction_length=J)


def test_poses_are_normalised_in_the_first_iteration_too():
    routing = built(InvertedAttention(), SIZES)
    traced = routing.trace(jnp.asarray(draw(I, J, D), jnp.float32), ONES)
    assert traced.p.shape == (2, J, D)
    assert_close(traced.p.mean(axis=-1) + 1, np.ones((2, J)), dtype="float32", reduction_length=D)
    variance = np.asarray(traced.s, np.float64).var(axis=-1)
    expected = variance / (variance + 1e-5)
    assert_close(traced.p.var(axis=-1), expected, dtype="float32", reduction_length=TERMS)


def test_first_and_again_with_other_votes_are_the_steps_of_concurrent_routing():
    # Two layers: the votes of the upper one follow from the poses of the lower one as they are by
    # then; those of the lower one stay.
    graphdef = build()
    below = draw(I, J, D)
    kernel = draw(I, J, D, D, seed=6) / 2  # of J capsules, each seen twice, to J others

    def upper_votes(poses, library):
        return library.einsum("ijdk,ik->ijd", kernel, library.concatenate([poses, poses]))

    truth_below = numpy_trace(below, 3)
    truth = numpy_step(upper_votes(truth_below[0].p, np), None, PARAMETERS)
    for step in truth_below[1:]:
        truth = numpy_step(upper_votes(step.p, np), truth.p, PARAMETERS)

    with jax.enable_x64(True):
        routing, votes = bound(graphdef, dtype="float64"), jnp.asarray(below)

        @jax.jit
        def concurrent(votes):
            inputs = routing._prepared(RoutingInputs(votes, ONES))
            low = routing.first(inputs)
            high = routing.first(inputs._replace(votes=upper_votes(low.p, jnp)))
            for index in (1, 2):
                low = routing.again(inputs, low, index)
                upper = inputs._replace(votes=upper_votes(low.p, jnp))
                high = routing.again(upper, high, index)
            return low, high

        low, high = concurrent(votes)
    for name in InvertedAttentionTrace._fields:
        for ours, expected in ((low, truth_below[-1]), (high, truth)):
            assert_close(getattr(ours, name), getattr(expected, name), reduction_length=2 * TERMS)


def test_without_presence_every_capsule_is_there_and_nothing_is_learned_of_it():
    graphdef = build(presence=False)
    parameters = {name: PARAMETERS[name] for name in ("scale", "bias")}
    routing = bound(graphdef, parameters)
    votes = jnp.asarray(draw(I, J, D), jnp.float32)
    without, with_presence = routing(votes, ONES), bound(build())(votes, ONES)
    np.testing.assert_array_equal(without.activation, np.ones(J))
    np.testing.assert_array_equal(without.pose, with_presence.pose)
    made = built(InvertedAttention(presence=False), SIZES)
    assert set(nnx.to_pure_dict(nnx.state(made))) == {"scale", "bias"}
    with pytest.raises(ValueError, match="inverted attention with presence=False has no logits"):
        routing.logits(without.pose)


def test_presence_is_the_sigmoid_of_a_logit_that_all_classes_share():
    routing = bound(build())
    routed = routing(jnp.asarray(draw(I, J, D), jnp.float32), ONES)
    logits = np.asarray(routing.logits(routed.pose), np.float64)
    pose = np.asarray(routed.pose, np.float64)
    expected = pose @ PARAMETERS["presence_weight"] + PARAMETERS["presence_bias"]
    assert_close(logits, expected, dtype="float32", reduction_length=D)
    assert_close(routed.activation, 1 / (1 + np.exp(-logits)), dtype="float32")


def test_initial_values_of_the_presence_are_uniform_up_to_the_root_of_the_dimension():
    routing = built(InvertedAttention(), SIZES._replace(out_dim=400))
    weight = np.asarray(routing.presence_weight[...])
    assert routing.presence_bias.shape == (1,)
    assert np.abs(weight).max() <= 1 / 20
    assert np.abs(weight).max() > 0.9 / 20
    assert abs(weight.mean()) < 0.1 / 20
    assert abs(routing.presence_bias[0]) > 0


def test_poses_of_one_number_are_not_normalised():
    votes = jnp.asarray(draw(I, J, 1), jnp.float32)
    traced = built(InvertedAttention(), SIZES._replace(out_dim=1)).trace(votes, ONES)
    np.testing.assert_array_equal(traced.p, traced.s)


def test_a_softmax_over_all_parents_takes_the_place_of_that_over_the_parents_in_sight():
    # In a convolution, the parents in sight get a part of what an input capsule has.
    routing = bound(build())
    votes = jnp.asarray(draw(I, J, D), jnp.float32)

    def halved(logits):
        return jax.nn.softmax(logits, axis=-1) / 2

    traced = routing.trace(votes, ONES, softmax=halved)
    total = traced.r.sum(axis=-1)
    assert_close(total, np.full((2, I), 0.5), dtype="float32", reduction_length=J)


def test_gradients_flow_through_every_iteration_to_everything():
    graphdef = build(iterations=3)

    def ours(votes, **parameters):
        return bound(graphdef, parameters, "float64")(votes, ONES)

    def loop(votes, **parameters):
        last = numpy_trace(votes, 3, parameters)[-1]
        return last.p, last.presence

    assert_slopes_agree(ours, loop, {"votes": draw(I, J, D), **PARAMETERS}, TERMS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"presence": 1}, "presence must be True or False, not 1"),
        ({"epsilon": -1e-10}, "epsilon must be a number from 0 to 1, not"),
        ({"layer_norm_epsilon": 2}, "layer_norm_epsilon must be a number above 0 and at most 1"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number above 0 and at most 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        create_routing("inverted-attention", **options)


def test_votes_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match="for out_dim=5 cannot route votes of shape"):
        bound(build())(jnp.ones((I, J, D + 1)), ONES)
