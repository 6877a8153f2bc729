"""Heinsen's routing of 2019 against a loop in float64 NumPy, and what is particular of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, route, trace
from capsjax.routing import Heinsen, HeinsenTrace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree, built
from tests.tolerance import assert_close

B, I, J, D = 3, 6, 4, 5  # noqa: E741
SIZES = Sizes(I, 8, J, D)
# A mean over the input capsules, a sum over the components, a softmax: in each of 3 iterations.
TERMS = 3 * I * J * D


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


VOTES = draw(B, I, J, D)
ACTIVATION = np.random.default_rng(1).uniform(0.1, 0.9, (B, I)).astype(np.float32)


def make(**options):
    routing = built(Heinsen(**options), SIZES)
    for seed, name in enumerate(routing.settings.parameters(SIZES)):
        beta = getattr(routing, name)
        beta[...] = jnp.asarray(draw(*beta.shape, seed=seed))
    return routing


def logistic(x):
    return 1 / (1 + np.exp(-x))


def numpy_trace(votes, activation, beta_use, beta_ign, iterations, model="gaussian", eps=1e-5):
    """Every iteration on one example, a sum at a time: arrays `[R, ...]`."""
    zeros = functools.partial(np.zeros, dtype=np.result_type(votes, activation, beta_use, beta_ign))
    steps, R = [], zeros((I, J)) + 1 / J
    for _ in range(iterations):
        D_use, D_ign = zeros((I, J)), zeros((I, J))
        a, mu, variance = zeros(J), zeros((J, D)), zeros((J, D))
        for j in range(J):
            for i in range(I):
                D_use[i, j] = activation[i] * R[i, j]
                D_ign[i, j] = activation[i] * (1 - R[i, j])
                a[j] += beta_use[i, j] * D_use[i, j] - beta_ign[i, j] * D_ign[i, j]
            total = D_use[:, j].sum() + eps
            mu[j] = sum(D_use[i, j] * votes[i, j] for i in range(I)) / total
            off = [D_use[i, j] * (votes[i, j] - mu[j]) ** 2 for i in range(I)]
            variance[j] = sum(off) / total + eps
        steps.append((R, D_use, D_ign, a, mu, variance))
        squares = (votes - mu) ** 2
        if model == "gaussian":
            p = np.exp(-squares / (2 * variance)) / np.sqrt(variance)
            p = p.prod(axis=-1)
        else:
            p = np.exp(-squares.sum(axis=-1))
        R = logistic(a) * p
        R = R / R.sum(axis=1, keepdims=True)
    return HeinsenTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


def numpy_batch(routing, iterations, **options):
    betas = [np.broadcast_to(np.asarray(b[...], np.float64), (I, J)) for b in betas_of(routing)]
    traces = [
        numpy_trace(votes, activation, *betas, iterations, **options)
        for votes, activation in zip(
            VOTES.astype(np.float64), ACTIVATION.astype(np.float64), strict=True
        )
    ]
    return HeinsenTrace(*(np.stack(arrays) for arrays in zip(*traces, strict=True)))


def betas_of(routing):
    return routing.beta_use, getattr(routing, "beta_ign", routing.beta_use)


@nnx.jit
def routed_and_traced(routing, votes, activation):
    return route(routing, votes, activation), trace(routing, votes, activation)


@functools.cache
def outputs(iterations=3, **options):
    return routed_and_traced(make(iterations=iterations, **options), VOTES, ACTIVATION)


@pytest.mark.parametrize(
    ("iterations", "options"),
    [
        (1, {}),
        (2, {"model": "soft_k_means", "epsilon": 0.1}),
        (3, {}),
        (3, {"single_beta": True}),
        (3, {"shared": True}),
    ],
    ids=str,
)
def test_every_iteration_is_that_of_a_plain_loop(iterations, options):
    routed, traced = outputs(iterations, **options)
    expected = numpy_batch(
        make(**options),
        iterations,
        model=options.get("model", "gaussian"),
        eps=options.get("epsilon", 1e-5),
    )
    assert_traces_agree(traced, expected, TERMS, "float32")
    last = HeinsenTrace(*(array[:, -1] for array in expected))
    assert_close(routed.pose, last.mu_out, dtype="float32", reduction_length=TERMS)
    assert_close(routed.coupling, last.R, dtype="float32", reduction_length=TERMS)
    assert_close(routed.activation, logistic(last.a_out), dtype="float32", reduction_length=TERMS)


def test_an_input_capsule_is_shared_out_and_what_one_uses_another_ignores():
    _, traced = outputs()
    assert_close(traced.R.sum(-1), np.ones((B, 3, I)), dtype="float32", reduction_length=J)
    data = np.broadcast_to(ACTIVATION[:, None, :, None], traced.D_use.shape)
    assert_close(traced.D_use + traced.D_ign, data)
    # Every output capsule ignores what the others use.
    others = traced.D_use.sum(-1, keepdims=True) - traced.D_use
    assert_close(traced.D_ign, others, reduction_length=J)


@pytest.mark.parametrize(("single", "names"), [(False, ["ign", "use"]), (True, ["use"])])
@pytest.mark.parametrize("shared", [False, True])
def test_the_betas_start_at_zero_in_the_dtype_of_the_parameters(single, names, shared):
    options = Heinsen(single_beta=single, shared=shared)
    routing = options.build(Sizes(I, 8, J, D), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    parameters = nnx.to_pure_dict(nnx.state(routing, nnx.Param))
    assert sorted(parameters) == [f"beta_{name}" for name in names]
    for beta in parameters.values():
        assert beta.shape == (1 if shared else I, J)
        assert beta.dtype == jnp.bfloat16
        assert not np.any(beta)


def test_with_the_betas_that_it_starts_from_every_capsule_may_be_there():
    routing = built(Heinsen(), SIZES)
    routed, _ = routed_and_traced(routing, VOTES, ACTIVATION)
    np.testing.assert_array_equal(routed.activation, np.full((B, J), 0.5, np.float32))


def test_data_that_is_worth_using_makes_a_capsule_present_and_attracts_votes():
    routing, worth = make(), make()
    worth.beta_use[...] = worth.beta_use[...].at[:, 2].add(3.0)
    ours = routed_and_traced(routing, VOTES, ACTIVATION)[1]
    theirs = routed_and_traced(worth, VOTES, ACTIVATION)[1]
    np.testing.assert_array_equal(ours.mu_out[:, 0], theirs.mu_out[:, 0])
    assert (theirs.a_out[:, 0, 2] > ours.a_out[:, 0, 2]).all()
    assert (theirs.R[:, 1, :, 2] > ours.R[:, 1, :, 2]).all()


def test_an_input_capsule_that_is_not_there_has_no_say():
    moved, activation = VOTES.copy(), ACTIVATION.copy()
    moved[:, 0] += 3.0
    activation[:, 0] = 0
    routing = make()
    ours, _ = routed_and_traced(routing, VOTES, activation)
    theirs, _ = routed_and_traced(routing, moved, activation)
    assert_close(ours.pose, theirs.pose, reduction_length=TERMS)
    assert_close(ours.activation, theirs.activation, reduction_length=TERMS)


def test_without_input_capsules_the_poses_are_zero_and_presence_is_undecided():
    routed, _ = routed_and_traced(make(), VOTES, np.zeros_like(ACTIVATION))
    np.testing.assert_array_equal(routed.pose, np.zeros((B, J, D), np.float32))
    np.testing.assert_array_equal(routed.activation, np.full((B, J), 0.5, np.float32))


def test_the_softmax_that_is_given_shares_out_in_every_iteration():
    # As in a convolution: a further parent, out of sight, gets its share.
    def with_another(logits):
        return jax.nn.softmax(jnp.pad(logits, ((0, 0), (0, 1))), axis=1)[:, :J]

    @nnx.jit
    def run(routing, *one):
        return routing(*one, softmax=with_another), routing.trace(*one, softmax=with_another)

    routed, traced = run(make(), VOTES[0], ACTIVATION[0])
    assert_close(traced.R[0], np.full((I, J), 1 / (J + 1)), dtype="float32")
    assert (traced.R.sum(-1) < 1).all()
    assert_close(routed.coupling, traced.R[-1])


def test_gradients_flow_through_every_iteration_to_everything():
    def ours(votes, activation, **betas):
        routing = built(Heinsen(), SIZES, "float64")
        routing.beta_use[...], routing.beta_ign[...] = betas["beta_use"], betas["beta_ign"]
        return routing(votes, activation)

    def loop(**arguments):
        trace = numpy_trace(**arguments, iterations=3)
        return trace.mu_out[-1], logistic(trace.a_out[-1])

    betas = {f"beta_{name}": draw(I, J, seed=seed) for seed, name in enumerate(("use", "ign"))}
    arguments = {"votes": VOTES[0], "activation": ACTIVATION[0], **betas}
    assert_slopes_agree(ours, loop, arguments, TERMS)


def test_votes_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"Heinsen for in_capsules=6 cannot route votes of shape"):
        route(make(), jnp.zeros((B, I + 1, J, D)), jnp.ones((B, I + 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"model": "skm"}, "unknown model 'skm', choose from: gaussian"),
        ({"single_beta": 1}, "single_beta must be True or False, not 1"),
        ({"shared": "yes"}, "shared must be True or False, not 'yes'"),
        ({"epsilon": -1e-5}, "epsilon must be a number above 0 and at most 1"),
        ({"epsilon": 0.0}, "epsilon must be a number above 0 and at most 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Heinsen(**options)
