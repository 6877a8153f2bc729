"""Routing by variational Bayes against the mixture of Gaussians of Bishop's book, in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import digamma, polygamma

from capsjax import Sizes, create_routing, route, trace
from capsjax.routing import VariationalBayes
from capsjax.routing.variational_bayes import _digamma
from tests.capsjax.routing.family import assert_slopes_agree, built, draw
from tests.tolerance import assert_close

SIZES = Sizes(in_capsules=7, in_dim=2, out_capsules=3, out_dim=4)
I, _, J, D = SIZES  # noqa: E741
BETA_A, BETA_U = np.asarray([0.3, -0.2, 0.1]), np.asarray([0.1, 0.4, -0.5])
# Three iterations, sums over all votes in each.
TERMS = 3 * I * J * D
OPTIONS = [
    {},
    {"cov": "full"},
    {"cov": "full", "shrinkage": 0.0},
    {"alpha0": 0.5},
    {"kappa0": 2.5, "m0": 0.7},
    {"nu0": 3.5},
    {"psi0": 0.25},
    {"kappa0": 2.5, "m0": 0.7, "psi0": 0.25, "cov": "full"},
]


def make(dtype=jnp.float32, **options):
    routing = built(VariationalBayes(**options), SIZES, dtype)
    routing.beta_a[...] = jnp.asarray(BETA_A, dtype)
    routing.beta_u[...] = jnp.asarray(BETA_U, dtype)
    return routing


def numpy_trace(
    votes,
    activation,
    iterations=3,
    cov="diag",
    alpha0=1.0,
    kappa0=1.0,
    m0=0.0,
    nu0=D + 1.0,
    psi0=1.0,
    shrinkage=1e-4,
):
    """One example, output capsule by output capsule, every covariance a matrix."""
    dtype = np.result_type(votes, activation)
    R, steps = np.full((I, J), 1 / J, dtype), []
    for _ in range(iterations):
        mass, m = np.zeros(J, dtype), np.zeros((J, D), dtype)
        W_inv, ln_lambda = np.zeros((J, D, D), dtype), np.zeros(J, dtype)
        for j in range(J):
            weight = R[:, j] * activation
            mass[j] = weight.sum()
            mean = (weight[:, None] * votes[:, j]).sum(0) / mass[j]
            S = sum(w * np.outer(v - mean, v - mean) for w, v in zip(weight, votes[:, j]))  # noqa: B905
            m[j] = (mass[j] * mean + kappa0 * m0) / (mass[j] + kappa0)
            shift = kappa0 * mass[j] / (kappa0 + mass[j]) * np.outer(mean - m0, mean - m0)
            W_inv[j] = np.eye(D) / psi0 + S + shift
            kept = 0 if cov == "diag" else 1 - shrinkage
            W_inv[j] *= kept + (1 - kept) * np.eye(D)
            ln_lambda[j] = sum(digamma((nu0 + mass[j] - d) / 2) for d in range(D))
            ln_lambda[j] += D * np.log(2) - np.log(np.linalg.det(W_inv[j]))
        alpha = alpha0 + mass
        ln_pi = digamma(alpha) - digamma(alpha.sum())
        entropy = D / 2 * np.log(2 * np.pi * np.e) - ln_lambda / 2
        a = 1 / (1 + np.exp(-(BETA_A - (np.exp(ln_pi) * entropy + BETA_U))))
        root = np.linalg.cholesky(W_inv.real)
        root = np.stack([np.diag(L) for L in root]) if cov == "diag" else root
        steps.append((R, mass, m, root, ln_lambda, ln_pi, entropy, a))

        ln_rho = np.zeros((I, J), dtype)
        for i in range(I):
            for j in range(J):
                off = votes[i, j] - m[j]
                squares = off @ np.linalg.inv(W_inv[j]) @ off
                expected = D / (kappa0 + mass[j]) + (nu0 + mass[j]) * squares
                ln_rho[i, j] = ln_pi[j] + (ln_lambda[j] - D * np.log(2 * np.pi) - expected) / 2
        R = np.exp(ln_rho) / np.exp(ln_rho).sum(axis=1, keepdims=True)
    return [np.stack(arrays) for arrays in zip(*steps, strict=True)]


def example(seed=0):
    votes, activation, _ = draw(1, SIZES, seed=seed)
    return votes[0], activation[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_iteration_is_that_of_the_textbook(options):
    votes, activation = example()
    # To compile all of them would take half a minute.
    with jax.disable_jit():
        traced = make(**options).trace(jnp.asarray(votes), jnp.asarray(activation))
    expected = numpy_trace(votes.astype(np.float64), activation.astype(np.float64), **options)
    for name, array, reference in zip(traced._fields, traced, expected, strict=True):
        assert array.shape == reference.shape, name
        assert_close(array, reference, dtype="float32", reduction_length=TERMS)


def test_every_option_matters():
    votes, activation = (x.astype(np.float64) for x in example())
    outcomes = [numpy_trace(votes, activation, **options)[-1][-1] for options in OPTIONS]
    for ours, theirs in itertools.combinations(outcomes, 2):
        assert np.abs(ours - theirs).max() > 1e-6


@pytest.mark.parametrize("iterations", [1, 2])
def test_iterations_are_as_many_as_asked_for(iterations):
    votes, activation = example()
    with jax.disable_jit(iterations > 1):
        routed = make(iterations=iterations)(jnp.asarray(votes), jnp.asarray(activation))
    R, _, m, *_, a = numpy_trace(votes.astype(np.float64), activation.astype(np.float64))
    for ours, theirs in zip(routed, (m, a, R), strict=True):
        assert_close(ours, theirs[iterations - 1], dtype="float32", reduction_length=TERMS)


@functools.partial(jax.jit, static_argnums=0)
def compiled(graphdef, state, votes, activation):
    routing = nnx.merge(graphdef, state)
    return route(routing, votes, activation), trace(routing, votes, activation)


def run(votes, activation, **options):
    arrays = (jnp.asarray(x, jnp.float32) for x in (votes, activation))
    return compiled(*nnx.split(make(**options)), *arrays)


def test_an_input_capsule_is_shared_out():
    votes, activation, _ = draw(2, SIZES)
    routed, traced = run(votes, activation)
    assert_close(routed.coupling.sum(-1), np.ones((2, I)), dtype="float32", reduction_length=J)
    np.testing.assert_array_equal(traced.r[:, 0], np.full((2, I, J), np.float32(1 / J)))
    assert ((routed.activation > 0) & (routed.activation < 1)).all()


def test_agreement_of_many_is_rewarded_with_activation_and_responsibility():
    votes, activation, _ = draw(2, SIZES._replace(in_capsules=200))
    votes[:, :, 1] = votes[:, :1, 1]  # all input capsules say the same to output capsule 1
    routing = VariationalBayes().build(SIZES, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    routed, traced = compiled(*nnx.split(routing), votes, activation)
    assert (routed.activation.argmax(-1) == 1).all()
    assert (routed.coupling.sum(-2).argmax(-1) == 1).all()
    assert (traced.entropy[:, -1, 1] < 0).all()
    # And the pose is what they say, but for the prior's one vote of zero.
    mass = traced.mass[:, -1, 1, None]
    assert_close(routed.pose[:, 1], votes[:, 0, 1] * mass / (mass + 1), reduction_length=200)


def test_activations_can_be_left_as_what_they_are_the_sigmoids_of():
    routing, plain = (
        VariationalBayes(activation=a).build(SIZES, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
        for a in ("logit", "sigmoid")
    )
    assert not nnx.state(routing, nnx.Param)
    inputs = [jnp.asarray(x) for x in example()]
    with jax.disable_jit():
        logits, routed = routing(*inputs), plain(*inputs)
    assert_close(jax.nn.sigmoid(logits.activation), routed.activation)
    np.testing.assert_array_equal(logits.pose, routed.pose)


def test_the_digamma_function_and_its_derivative():
    x = np.concatenate([np.linspace(0.5, 20, 1000), np.logspace(1, 7, 100)])
    with jax.enable_x64(True):
        value, slope = jax.vmap(jax.value_and_grad(_digamma))(jnp.asarray(x))
    assert_close(value, digamma(x))
    # Small where x is large, and right there, too.
    assert_close(np.asarray(slope) / polygamma(1, x), np.ones(len(x)))
    assert_close(jax.jit(_digamma)(jnp.asarray(x, jnp.float32)), digamma(x), dtype="float32")


def test_where_nothing_is_active_the_posterior_is_the_prior():
    votes, _, _ = draw(2, SIZES)
    _, traced = run(votes, np.zeros((2, I)))
    assert not np.any(traced.mass)
    assert not np.any(traced.m)
    np.testing.assert_array_equal(traced.root, np.ones((2, 3, J, D)))
    expected = np.full((2, 3, J), digamma(1) - digamma(J))
    assert_close(traced.ln_pi, expected, dtype="float32", reduction_length=J)


def test_full_and_diagonal_covariances_are_the_same_in_one_dimension():
    sizes = SIZES._replace(out_dim=1)
    inputs = [jnp.asarray(x[0]) for x in draw(1, sizes)[:2]]
    diag, full = (
        VariationalBayes(cov=cov).build(sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
        for cov in ("diag", "full")
    )
    with jax.disable_jit():
        for ours, theirs in zip(full(*inputs), diag(*inputs), strict=True):
            assert_close(ours, theirs, reduction_length=TERMS)


@pytest.mark.parametrize("cov", ["diag", "full"])
def test_gradients_flow_through_every_iteration(cov):
    def loop(votes, activation):
        _, _, m, *_, a = numpy_trace(votes, activation, cov=cov)
        return m[-1], a[-1]

    with jax.enable_x64(True):
        routing = make(jnp.float64, cov=cov)
    votes, activation = example()
    assert_slopes_agree(routing, loop, {"votes": votes, "activation": activation}, TERMS)


def hard(batch=5):
    """Fewer votes than dimensions, in float32: covariances of low rank beside a prior of one."""
    sizes = Sizes(in_capsules=3, in_dim=2, out_capsules=2, out_dim=8)
    votes, activation, _ = draw(batch, sizes)
    votes[0] *= 1e6
    votes[1] = votes[1, :1] * 1e6
    votes[2, ..., 1:] *= 1e-6
    votes[3, 0] *= 1e8
    activation[4] = 0
    return sizes, jnp.asarray(votes), jnp.asarray(activation)


def total_of(routing, votes, activation):
    """The sum of what is routed, and its gradients."""

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def total(votes, activation):
        routed = route(routing, votes, activation)
        return sum(jnp.sum(x) for x in routed)

    return total(votes, activation)


def test_full_covariances_of_low_rank_are_finite_in_value_and_gradient():
    sizes, votes, activation = hard()
    routing = VariationalBayes(cov="full")
    routing = routing.build(sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    for array in jax.tree.leaves(total_of(routing, votes, activation)):
        assert np.isfinite(array).all()


def test_betas_start_at_zero_in_the_dtype_of_parameters():
    routing = create_routing("variational-bayes")
    routing = routing.build(SIZES, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    for beta in (routing.beta_a[...], routing.beta_u[...]):
        assert (beta.shape, beta.dtype) == ((J,), jnp.bfloat16)
        assert not np.any(beta)


def test_the_prior_has_more_degrees_of_freedom_than_dimensions():
    with pytest.raises(ValueError, match="nu0 must be more than 3 for poses of dimension 4, not 3"):
        make(nu0=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1"),
        ({"cov": "spherical"}, "unknown cov 'spherical', choose from: diag, full"),
        ({"activation": "tanh"}, "unknown activation 'tanh', choose from: sigmoid, logit"),
        ({"alpha0": 0}, "alpha0 must be a number of more than 0, not 0"),
        ({"kappa0": -1.0}, "kappa0 must be a number of more than 0"),
        ({"m0": float("nan")}, "m0 must be a number, not nan"),
        ({"m0": "zero"}, "m0 must be a number, not 'zero'"),
        ({"nu0": float("inf")}, "nu0 must be a number of more than 0, not inf"),
        ({"psi0": True}, "psi0 must be a number of more than 0, not True"),
        ({"shrinkage": 1.5}, "shrinkage must be a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_routing("variational-bayes", **options)


def test_other_sizes_are_refused():
    votes, activation, _ = draw(2, SIZES)
    with pytest.raises(ValueError, match="for out_capsules=3 cannot route votes of shape"):
        route(make(), votes[:, :, :2], activation)
    with pytest.raises(ValueError, match="nu0 must be more than 11 for poses of dimension 12"):
        route(make(nu0=D - 0.5), np.tile(votes, 3), activation)
