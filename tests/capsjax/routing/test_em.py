"""EM routing against loops in float64 NumPy: the authors' code, and yl-1993's with its options."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, create_routing
from capsjax.routing import EM, EMTrace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree, built
from tests.tolerance import assert_close

I, K, J, D = SIZES = Sizes(6, 4, 3, 4)  # noqa: E741
TERMS = 3 * I * J * D

YL_1993 = {
    "formulation": "paper",
    "inverse_temperature": 0.001,
    "temperature_decay": 0,
    "previous_share": 0,
    "min_variance": 1e-8,
    "mass_epsilon": 1e-8,
    "renormalize": True,
    "initial_beta_u": 0,
    "initial_beta_a": 0,
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def example(seed=0):
    """Votes, activations, and parameters around what they start from."""
    activation = np.random.default_rng(seed).uniform(0.1, 0.9, I)
    parameters = 0.5 + 0.1 * draw(2, J, seed=seed)
    return draw(I, J, D, seed=seed), activation, *parameters


def make(beta_u, beta_a, **options):
    options = EM(**options)
    routing = options.build(SIZES, param_dtype=jnp.result_type(float), rngs=nnx.Rngs(0))
    routing.beta_u[...], routing.beta_a[...] = jnp.asarray(beta_u), jnp.asarray(beta_a)
    return routing


def traced(votes, activation, beta_u, beta_a, **options):
    with jax.enable_x64(True):
        routing = make(beta_u, beta_a, **options)
        trace = routing.trace(jnp.asarray(votes), jnp.asarray(activation))
        return jax.tree.map(np.asarray, trace)


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def numpy_trace(votes, activation, beta_u, beta_a, iterations=3, leaky=False, quarter=1.0):
    """The authors' code, capsule by capsule."""
    zeros = functools.partial(np.zeros, dtype=np.result_type(votes, activation, beta_u, beta_a))
    steps, log_ap, mu = [], zeros((I, J)), zeros((J, D))
    for t in range(1, iterations + 1):
        r = zeros((I, J))
        for i in range(I):
            r[i] = softmax(np.append(log_ap[i], 0))[:J] if leaky else softmax(log_ap[i])
        mass, variance, logit = zeros(J), zeros((J, D)), zeros(J)
        new_mu, new_log_ap = zeros((J, D)), zeros((I, J))
        for j in range(J):
            w = r[:, j] * activation
            mass[j] = w.sum()
            m = mass[j] + 1e-5
            for d in range(D):
                new_mu[j, d] = 0.9 * (w @ votes[:, j, d]) / m + 0.1 * mu[j, d]
                squares = (votes[:, j, d] - new_mu[j, d]) ** 2
                variance[j, d] = 0.0005 + (w @ squares) / m
            bits = np.log(variance[j]).sum() + beta_u[j] * D * (math.log(2 * math.pi) + 1)
            temperature = quarter * 0.01 * (1 - 0.95**t)
            logit[j] = temperature * (-m * bits - 5000 * beta_a[j])
            log_a = -np.log(1 + np.exp(-logit[j]))
            for i in range(I):
                log_p = 0
                for d in range(D):
                    scaled = (votes[i, j, d] - new_mu[j, d]) ** 2 / variance[j, d]
                    log_p -= 0.5 * (scaled + np.log(2 * math.pi * variance[j, d]))
                new_log_ap[i, j] = log_a + log_p
        a = 1 / (1 + np.exp(-logit))
        steps.append((log_ap, r, mass, new_mu, variance, logit, a))
        log_ap, mu = new_log_ap, new_mu
    return EMTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


def numpy_yl_1993(votes, activation, beta_u, beta_a, iterations=3, eps=1e-8):
    """Assignments, means and activations at the end, on all capsules at once."""
    r = np.full((I, J), 1 / J)
    for t in range(iterations):
        weights = r * activation[:, None]
        weights = weights / (weights.sum(axis=1, keepdims=True) + eps)
        total = weights.sum(axis=0)
        share = (weights / (total + eps))[:, :, None]
        mu = (share * votes).sum(axis=0)
        variance = (share * (votes - mu) ** 2).sum(axis=0) + eps
        cost = (beta_u[:, None] + 0.5 * np.log(variance)) * total[:, None]
        a = 1 / (1 + np.exp(-0.001 * (beta_a - cost.sum(axis=1))))
        if t < iterations - 1:
            log_p = -((votes - mu) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)
            r = np.stack([softmax(row) for row in log_p.sum(axis=2) + np.log(a)])
    return r, mu, a


@pytest.mark.parametrize(
    ("options", "of_loop"),
    [
        ({}, {}),
        ({"leaky": True}, {"leaky": True}),
        ({"inverse_temperature": 0.0025}, {"quarter": 0.25}),
    ],
    ids=["default", "leaky", "class layer"],
)
def test_every_iteration_is_that_of_a_plain_loop(options, of_loop):
    inputs = example()
    ours = traced(*inputs, **options)
    assert_traces_agree(ours, numpy_trace(*inputs, **of_loop), TERMS)
    # The assignments are neither uniform any more nor all 0 or 1: the loop was put to the test.
    assert ((ours.r[-1] > 0.01) & (ours.r[-1] < 0.3)).any()


@pytest.mark.parametrize("iterations", [1, 2])
def test_fewer_iterations_are_the_first_of_more(iterations):
    inputs = example()
    expected = numpy_trace(*inputs, iterations=iterations)
    assert_traces_agree(traced(*inputs, iterations=iterations), expected, TERMS)
    with jax.enable_x64(True):
        routing = make(*inputs[2:], iterations=iterations)
        routed = routing(*map(jnp.asarray, inputs[:2]))
    for ours, theirs in zip(routed, (expected.mu[-1], expected.a[-1], expected.r[-1]), strict=True):
        assert_close(ours, theirs, reduction_length=TERMS)


def test_options_make_it_that_of_yl_1993():
    inputs = example(seed=1)
    ours = traced(*inputs, **YL_1993)
    r, mu, a = numpy_yl_1993(*inputs)
    assert_close(ours.r[-1], r, reduction_length=TERMS)
    assert_close(ours.mu[-1], mu, reduction_length=TERMS)
    assert_close(ours.a[-1], a, reduction_length=TERMS)


def test_the_assignments_of_an_input_capsule_sum_to_one_unless_some_are_lost():
    inputs = example()
    total = traced(*inputs).r.sum(axis=2)
    assert_close(total, np.ones((3, I)), reduction_length=J)
    with_orphans = traced(*inputs, leaky=True).r.sum(axis=2)
    assert_close(with_orphans[0], np.full(I, J / (J + 1)), reduction_length=J)
    assert (with_orphans < 1).all()


def test_initial_values_are_options_and_have_the_dtype_of_the_parameters():
    options = EM(initial_beta_u=2, initial_beta_a=1)
    routing = options.build(SIZES, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    for parameter, value in ((routing.beta_u, 2), (routing.beta_a, 1)):
        assert parameter.dtype == jnp.bfloat16
        np.testing.assert_array_equal(parameter[...], np.full(J, value))
    assert create_routing("em", initial_beta_u=2, initial_beta_a=1) == options


def test_the_temperature_falls_towards_its_end_or_is_constant():
    assert EM(2, temperature_decay=0.5).schedule == [0.005, 0.0075]
    assert EM(3, temperature_decay=0).schedule == [0.01] * 3
    inputs = example()
    constant = traced(*inputs, temperature_decay=0)
    # The first Gaussians are the same, by the first of the schedule's temperatures.
    assert_close(constant.logit[0] * (1 - 0.95), traced(*inputs).logit[0], reduction_length=TERMS)


def test_the_previous_mean_has_its_share():
    inputs = example()
    plain = traced(*inputs, previous_share=0).mu[0]
    assert_close(traced(*inputs, previous_share=0.3).mu[0], 0.7 * plain, reduction_length=TERMS)


def test_the_cost_with_a_beta_u_of_one_is_the_entropy():
    votes, activation, _, beta_a = example()
    ours = traced(votes, activation, np.ones(J), beta_a, temperature_decay=0, iterations=1)
    entropy = 0.5 * np.log(2 * np.pi * np.e * ours.variance[0]).sum(axis=1)
    saved = -2 * (ours.mass[0] + 1e-5) * entropy - 5000 * beta_a
    assert_close(ours.logit[0], 0.01 * saved, reduction_length=TERMS)


def test_agreement_switches_a_capsule_on():
    votes, activation, beta_u, _ = example()
    votes[:, 0] = votes[0, 0] + 0.01 * votes[:, 0]
    ours = traced(votes, activation, beta_u, np.zeros(J), inverse_temperature=0.1)
    assert ours.a[-1, 0] > 0.6
    assert (ours.a[-1, 1:] < 0.51).all()
    assert (ours.r[-1, :, 0] > 0.9).all()


def test_an_input_capsule_that_is_off_does_not_count_unless_activations_are_taken_out():
    votes, activation, *betas = example()
    other = votes.copy()
    other[2] = 7.0
    activation[2] = 0
    for ours, theirs in zip(
        traced(votes, activation, *betas), traced(other, activation, *betas), strict=True
    ):
        of_outputs = ours.shape[1] == J
        if of_outputs:
            assert_close(ours, theirs, reduction_length=TERMS)
    nearly = np.full(I, 1e-3)
    once_more = traced(votes, nearly, *betas, renormalize=True).mass[0]
    assert_close(once_more, np.full(J, I / J * 1e-3 / (1e-3 + 1e-5)), reduction_length=I)


def test_gradients_flow_through_every_iteration_to_everything():
    def loop(**arguments):
        trace = numpy_trace(**arguments)
        return trace.mu[-1], trace.a[-1]

    names = ("votes", "activation", "beta_u", "beta_a")
    assert_slopes_agree(
        lambda votes, activation, **betas: make(**betas)(votes, activation),
        loop,
        dict(zip(names, example(), strict=True)),
        TERMS,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"formulation": "book"}, "unknown formulation 'book', choose from: code, paper"),
        ({"inverse_temperature": 0}, "inverse_temperature must be a number of more than 0, not 0"),
        (
            {"temperature_decay": 1.5},
            "temperature_decay must be .* less than 1, not 1.5",
        ),
        ({"temperature_decay": 1}, "temperature_decay must be a number of .* less than 1, not 1"),
        ({"previous_share": 1}, "previous_share must be a number of .* less than 1, not 1"),
        ({"min_variance": 0}, "min_variance must be a number of more than 0, not 0"),
        ({"mass_epsilon": math.inf}, "mass_epsilon must be a number of more than 0, not inf"),
        ({"renormalize": 1}, "renormalize must be True or False, not 1"),
        ({"renormalize": True, "leaky": True}, "leaky=True and renormalize=True contradict"),
        ({"leaky": None}, "leaky must be True or False, not None"),
        ({"initial_beta_u": "2"}, "initial_beta_u must be a number, not '2'"),
        ({"initial_beta_a": math.nan}, "initial_beta_a must be a number, not nan"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        EM(**options)


def test_votes_for_other_output_capsules_are_refused():
    routing = built(EM(), SIZES._replace(out_capsules=J + 1))
    with pytest.raises(ValueError, match="EM for out_capsules=4 cannot route votes of shape"):
        routing(jnp.zeros((I, J, D)), jnp.ones(I))


def test_output_capsules_compete_in_the_softmax_that_is_given():
    votes, activation, *betas = example()
    weights = np.linspace(0.1, 0.3, J)
    with jax.enable_x64(True):
        routed = make(*betas)(
            jnp.asarray(votes),
            jnp.asarray(activation),
            softmax=lambda logits: jnp.broadcast_to(jnp.asarray(weights), logits.shape),
        )
    np.testing.assert_array_equal(routed.coupling, np.broadcast_to(weights, (I, J)))
