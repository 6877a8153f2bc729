"""Dynamic routing, its options and its learned prior, against a loop in float64 NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Sizes, Squash, route, trace
from capsjax.routing import Dynamic, DynamicBias, DynamicLeaky, DynamicPrior, DynamicTrace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree, built
from tests.tolerance import assert_close

B, I, J, D = 4, 6, 3, 5  # noqa: E741
SIZES = Sizes(I, 8, J, D)
OPTIONS = [
    {"softmax_over": over, "shared_logits": shared, "squash": squash}
    for over, shared, squash in itertools.product(
        ["out", "in"], [False, True], [Squash(), Squash("element"), Squash("pose", 0.01, "square")]
    )
]
OVER = pytest.mark.parametrize("over", ["in", "out"])
TERMS = 5 * I * D


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def numpy_squash(s, squash=Squash()):  # noqa: B008
    square = s**2 if squash.axis == "element" else (s**2).sum(-1, keepdims=True)
    return square / (1 + square) * s / np.sqrt(square + squash.epsilon)


def softmax(b, axis):
    e = np.exp(b - b.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def numpy_trace(
    votes,
    iterations,
    softmax_over="out",
    shared_logits=False,
    squash=Squash(),  # noqa: B008
    prior=0.0,
    bias=0.0,
):
    """Every iteration on a batch `[B, I, J, D]`, example by example: arrays `[B, R, ...]`."""
    batch = len(votes)
    b = [np.zeros(votes.shape[1:3]) + prior for _ in range(batch)]
    steps = []
    for _ in range(iterations):
        c = [softmax(b_n, axis={"in": 0, "out": 1}[softmax_over]) for b_n in b]
        s = [
            (c_n[:, :, None] * u_hat).sum(axis=0) + bias
            for c_n, u_hat in zip(c, votes, strict=True)
        ]
        v = [numpy_squash(s_n, squash) for s_n in s]
        steps.append((np.stack(b), np.stack(c), np.stack(s), np.stack(v)))
        agreement = [(u_hat * v_n[None]).sum(-1) for u_hat, v_n in zip(votes, v, strict=True)]
        if shared_logits:
            agreement = [sum(agreement) / batch] * batch
        b = [b_n + a for b_n, a in zip(b, agreement, strict=True)]
    return DynamicTrace(*(np.stack(arrays, axis=1) for arrays in zip(*steps, strict=True)))


def traced(routing, votes):
    """The trace of a batch in float64, operation by operation."""
    with jax.enable_x64(True):
        return jax.device_get(trace(routing, jnp.asarray(votes), jnp.ones(votes.shape[:2])))


@functools.partial(jax.jit, static_argnums=0)
def routed_and_traced(routing, votes):
    ones = jnp.ones(votes.shape[:2], votes.dtype)
    return route(routing, votes, ones), trace(routing, votes, ones)


def run(routing, votes):
    return routed_and_traced(routing, jnp.asarray(votes, jnp.float32))[0]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_iteration_is_that_of_a_plain_loop(options):
    votes = draw(B, I, J, D)
    assert_traces_agree(
        traced(Dynamic(5, **options), votes), numpy_trace(votes, 5, **options), TERMS
    )


@pytest.mark.parametrize(
    ("iterations", "options"),
    [(1, {}), (2, OPTIONS[4]), (3, OPTIONS[6]), (3, {"leaky": True, "detach": True}), (5, {})],
)
def test_what_is_returned_is_the_last_iteration(iterations, options):
    votes, routing = draw(B, I, J, D), Dynamic(iterations, **options)
    routed, in_float32 = routed_and_traced(routing, jnp.asarray(votes, jnp.float32))
    expected = traced(routing, votes)
    assert_traces_agree(in_float32, expected, TERMS, "float32")
    lengths = np.linalg.norm(expected.v[:, -1], axis=-1)
    for ours, theirs in zip(routed, (expected.v[:, -1], lengths, expected.c[:, -1]), strict=True):
        assert_close(ours, theirs, dtype="float32", reduction_length=TERMS)


def test_one_example_is_traced_without_a_batch():
    one = Dynamic(2).trace(jnp.asarray(draw(I, J, D), jnp.float32), jnp.ones(I))
    assert [x.shape for x in one] == [(2, I, J), (2, I, J), (2, J, D), (2, J, D)]


@OVER
def test_coupling_coefficients_sum_to_one_whatever_the_votes(over):
    scale = np.logspace(-2, 2, 30)[:, None, None, None]
    coupling = run(Dynamic(3, softmax_over=over), scale * draw(30, I, J, D)).coupling
    total = jnp.sum(coupling, axis=-1 if over == "out" else -2)
    assert_close(total, np.ones(total.shape), dtype="float32", reduction_length=I)
    assert (coupling >= 0).all()


def test_a_leaky_softmax_has_a_further_logit_of_zero():
    votes = draw(B, I, J, D)
    leaky = traced(Dynamic(3, leaky=True), votes)
    expected = softmax(np.pad(leaky.b, [(0, 0)] * 3 + [(1, 0)]), axis=-1)[..., 1:]
    assert_close(leaky.c, expected, reduction_length=J)
    assert (leaky.c.sum(-1) < 1).all()
    for ours, theirs in zip(traced(DynamicLeaky(3), votes), leaky, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shared_logits_are_shared_by_all_leading_axes():
    votes = draw(6, I, J, D)
    routing = Dynamic(3, shared_logits=True)
    folded = jnp.asarray(votes.reshape(2, 3, I, J, D), jnp.float32)
    pose = jax.jit(lambda votes: route(routing, votes, jnp.ones((2, 3, I))).pose)(folded)
    assert_close(pose.reshape(6, J, D), run(routing, votes).pose)


@pytest.mark.parametrize("devices", [2, 4])
def test_a_batch_on_several_devices_shares_its_logits_as_on_one(devices):
    votes, weights = draw(8, I, J, D), jnp.asarray(draw(8, J, D, seed=1), jnp.float32)

    def loss(scale, votes, weights, **options):
        routing = Dynamic(3, shared_logits=True, **options)
        pose = route(routing, scale * votes, jnp.ones(votes.shape[:2])).pose
        return jnp.mean(jnp.sum(pose * weights, axis=(1, 2))), pose

    def on_a_device(scale, votes, weights):
        gradient, pose = jax.grad(loss, has_aux=True)(scale, votes, weights, shared_axes=("data",))
        return jax.lax.pmean(gradient, "data"), pose

    scale, votes = jnp.ones(()), jnp.asarray(votes, jnp.float32)
    expected_gradient, expected_pose = jax.jit(jax.grad(loss, has_aux=True))(scale, votes, weights)
    spread = jax.pmap(
        on_a_device,
        axis_name="data",
        in_axes=(None, 0, 0),
        out_axes=(None, 0),
        devices=jax.devices()[:devices],
    )
    gradient, pose = spread(
        scale, votes.reshape(devices, -1, I, J, D), weights.reshape(devices, -1, J, D)
    )
    assert_close(pose.reshape(8, J, D), expected_pose, reduction_length=8 * I * D)
    assert_close(gradient, expected_gradient, reduction_length=8 * I * J * D)


def last(votes, iterations=3, **options):
    """Poses and activations of the last iteration of the loop, of one example."""
    v = numpy_trace(votes[None], iterations, **options).v[0, -1]
    return v, np.sqrt((v**2).sum(-1))


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[8]], ids=str)
def test_gradients_flow_through_every_iteration(options):
    def ours(votes):
        return Dynamic(3, **options)(votes, jnp.ones(I))

    assert_slopes_agree(ours, functools.partial(last, **options), {"votes": draw(I, J, D)}, TERMS)


@pytest.mark.parametrize("options", [OPTIONS[5], OPTIONS[9]], ids=str)
def test_gradients_flow_through_logits_that_examples_share(options):
    def ours(votes):
        routed = route(Dynamic(3, **options), votes, jnp.ones((2, I)))
        return routed._replace(
            pose=routed.pose.reshape(-1, D), activation=routed.activation.reshape(-1)
        )

    def loop(votes):
        v = numpy_trace(votes, 3, **options).v[:, -1].reshape(-1, D)
        return v, np.sqrt((v**2).sum(-1))

    assert_slopes_agree(ours, loop, {"votes": draw(2, I, J, D)}, 2 * TERMS)


def test_detached_gradients_flow_through_the_last_iteration_only():
    votes = draw(I, J, D)
    coupling = numpy_trace(votes[None], 3).c[0, -1]  # a constant

    def last_iteration(votes):
        v = numpy_squash(np.einsum("ij,ijd->jd", coupling, votes))
        return v, np.sqrt((v**2).sum(-1))

    def ours(votes, detach=True):
        return Dynamic(3, detach=detach)(votes, jnp.ones(I))

    assert_slopes_agree(ours, last_iteration, {"votes": votes}, TERMS)
    with pytest.raises(AssertionError, match="differ"):
        assert_slopes_agree(
            functools.partial(ours, detach=False), last_iteration, {"votes": votes}, TERMS
        )


def test_detaching_changes_no_value():
    votes = draw(B, I, J, D)
    ours, theirs = run(Dynamic(3), votes), run(Dynamic(3, detach=True), votes)
    np.testing.assert_array_equal(ours.pose, theirs.pose)


def test_votes_of_zero_route_to_zero_with_a_finite_gradient():
    votes = jnp.zeros((2, I, J, D))

    @jax.jit
    @jax.value_and_grad
    def total(votes):
        return jnp.sum(route(Dynamic(3), votes, jnp.ones((2, I))).activation)

    value, gradient = total(votes)
    assert value == 0
    assert not np.any(gradient)


def test_coarse_votes_are_routed_in_float32():
    coarse = jnp.asarray(draw(B, I, J, D), jnp.bfloat16)
    routed, in_float32 = routed_and_traced(Dynamic(3), coarse)
    assert {x.dtype for x in (*routed, *in_float32)} == {jnp.dtype("float32")}
    expected = numpy_trace(np.asarray(coarse, np.float64), 3)
    assert_close(routed.pose, expected.v[:, -1], dtype="bfloat16", reduction_length=I * D)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"iterations": -3}, "at least 1, not -3"),
        ({"iterations": 2.0}, "must be an integer of at least 1, not 2.0"),
        ({"iterations": True}, "not True"),
        ({"softmax_over": "i"}, "unknown softmax_over 'i', choose from: out, in"),
        ({"shared_logits": 1}, "shared_logits must be True or False, not 1"),
        ({"leaky": 1}, "leaky must be True or False, not 1"),
        ({"leaky": True, "softmax_over": "in"}, "leaky needs softmax_over='out'"),
        ({"detach": "yes"}, "detach must be True or False, not 'yes'"),
        ({"shared_axes": "data"}, "shared_axes must be a sequence of names, not 'data'"),
        ({"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Dynamic(**options)


# --- The prior


def with_prior(prior, dtype="float32", **options):
    routing = built(DynamicPrior(**options), SIZES, dtype)
    routing.prior[...] = prior
    return routing


def test_a_prior_starts_at_zero_and_routes_as_if_there_were_none():
    routing, votes = built(DynamicPrior(iterations=4), SIZES), draw(B, I, J, D)
    assert routing.prior.shape == (I, J)
    assert not np.any(routing.prior[...])
    for a, b in zip(traced(routing, votes), traced(Dynamic(4), votes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_logits_start_from_the_prior_in_every_example():
    votes, prior = draw(B, I, J, D), draw(I, J, seed=1)
    with jax.enable_x64(True):
        routing = with_prior(jnp.asarray(prior), "float64", iterations=2)
        ours = traced(routing, votes)
    assert_traces_agree(ours, numpy_trace(votes, 2, prior=prior), TERMS)
    np.testing.assert_array_equal(ours.b[:, 0], np.broadcast_to(prior, (B, I, J)))


def test_gradients_reach_the_prior():
    def ours(votes, prior):
        return with_prior(prior, "float64")(votes, jnp.ones(I))

    arguments = {"votes": draw(I, J, D), "prior": draw(I, J, seed=1)}
    assert_slopes_agree(ours, last, arguments, TERMS)


def test_the_prior_has_the_dtype_of_the_parameters():
    routing = built(DynamicPrior(), SIZES, "bfloat16")
    assert routing.prior.dtype == jnp.bfloat16
    shapes = jax.eval_shape(lambda votes: routing(votes, jnp.ones(I)), jnp.zeros((I, J, D)))
    assert shapes.pose.dtype == jnp.float32


# --- The bias


def with_bias(bias, dtype="float32", **options):
    routing = built(DynamicBias(**options), SIZES, dtype)
    routing.bias[...] = bias
    return routing


def test_a_bias_starts_at_the_authors_value():
    np.testing.assert_array_equal(built(DynamicBias(), SIZES).bias[...], np.full((J, D), 0.1, "f"))
    with pytest.raises(ValueError, match="initial_bias must be a number, not 'x'"):
        DynamicBias(initial_bias="x")


def test_a_bias_is_added_in_every_iteration():
    votes, bias = draw(B, I, J, D), draw(J, D, seed=1)
    with jax.enable_x64(True):
        routing = with_bias(jnp.asarray(bias), "float64", iterations=3)
        ours = traced(routing, votes)
    assert_traces_agree(ours, numpy_trace(votes, 3, bias=bias), TERMS)


def test_gradients_reach_the_bias():
    def ours(votes, bias):
        return with_bias(bias, "float64")(votes, jnp.ones(I))

    arguments = {"votes": draw(I, J, D), "bias": draw(J, D, seed=1)}
    assert_slopes_agree(ours, last, arguments, TERMS)


@pytest.mark.parametrize("options", [{"softmax_over": "in"}, {"leaky": True}], ids=str)
def test_every_softmax_leaves_out_what_is_masked(options):
    votes = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    kept, ones = np.asarray([0, 3, 4]), np.ones((2, 5), np.float32)
    mask = jnp.asarray(np.isin(np.arange(5), kept)[None] & np.ones((2, 1), bool))
    masked = route(Dynamic(**options), jnp.asarray(votes), ones, mask=mask)
    expected = route(Dynamic(**options), jnp.asarray(votes[:, kept]), ones[:, kept])
    assert_close(masked.pose, expected.pose, reduction_length=15)
    assert_close(masked.coupling[:, kept], expected.coupling, reduction_length=15)
    np.testing.assert_array_equal(masked.coupling[:, [1, 2]], 0)
