"""Routing by kernel density estimation against loops in float64 NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Squash, create_routing
from capsjax.routing import KDEEM, KDEDynamic, KDEDynamicTrace, KDEEMTrace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree
from tests.tolerance import assert_close

I, J, D = 6, 3, 4  # noqa: E741
TERMS = 3 * I * J * D


def example(seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((I, J, D)), random.uniform(0.1, 0.9, I)


def traced(routing, votes, activation):
    with jax.enable_x64(True):
        trace = routing.trace(jnp.asarray(votes), jnp.asarray(activation))
        return jax.tree.map(np.asarray, trace)


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def length(s):
    return np.sqrt((s**2).sum(-1))


def squash(s, constant=0.5):
    n = length(s)
    return n / (constant + n**2) * s


def numpy_mean_shift(votes, activation, iterations=3, constant=0.5):
    """FRMS, capsule by capsule."""
    steps, b = [], np.zeros((I, J), votes.dtype)
    for _ in range(iterations):
        c = np.stack([softmax(row) for row in b])
        w, s, v, next_b = (np.zeros_like(x) for x in (b, votes[0], votes[0], b))
        for j in range(J):
            w[:, j] = c[:, j] / c[:, j].sum()
            for i in range(I):
                s[j] += w[i, j] * votes[i, j]
            v[j] = squash(s[j], constant)
            for i in range(I):
                distance = length(squash(votes[i, j], constant) - v[j])
                next_b[i, j] = b[i, j] + 1 - distance**2
        steps.append((b, c, w, s, v))
        b = next_b
    return KDEDynamicTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


def numpy_mixture(votes, activation, iterations=3, bandwidth=0.5**0.5, constant=0.5):
    """FREM, capsule by capsule."""
    dtype = np.result_type(votes, activation)
    steps, log_pk = [], np.zeros((I, J), dtype)
    for _ in range(iterations):
        c = np.stack([softmax(row) for row in log_pk])
        m, next_log_pk = np.zeros(J, dtype), np.zeros((I, J), dtype)
        s, v = np.zeros((J, D), dtype), np.zeros((J, D), dtype)
        for j in range(J):
            m[j] = c[:, j] @ activation
            for i in range(I):
                s[j] += c[i, j] * activation[i] * votes[i, j] / (m[j] + 1e-5)
            v[j] = squash(s[j], constant)
            for i in range(I):
                distance = length(squash(votes[i, j], constant) - v[j])
                kernel = np.exp(-((distance / bandwidth) ** 2) / 2)
                next_log_pk[i, j] = np.log((m[j] + 1e-5) * kernel)
        steps.append((log_pk, c, m, s, v))
        log_pk = next_log_pk
    return KDEEMTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


BOTH = pytest.mark.parametrize(
    ("kind", "loop", "coupling"), [(KDEDynamic, numpy_mean_shift, "w"), (KDEEM, numpy_mixture, "c")]
)


@pytest.mark.parametrize(
    ("kind", "loop", "options", "of_loop"),
    [
        (KDEDynamic, numpy_mean_shift, {}, {}),
        (KDEDynamic, numpy_mean_shift, {"half_length": 1}, {"constant": 1}),
        (KDEDynamic, numpy_mean_shift, {"half_length": 2}, {"constant": 4}),
        (KDEEM, numpy_mixture, {}, {}),
        (KDEEM, numpy_mixture, {"bandwidth": 0.3}, {"bandwidth": 0.3}),
        (KDEEM, numpy_mixture, {"half_length": 1}, {"constant": 1}),
    ],
)
def test_every_iteration_is_that_of_a_plain_loop(kind, loop, options, of_loop):
    inputs = example()
    ours = traced(kind(**options), *inputs)
    assert_traces_agree(ours, loop(*inputs, **of_loop), TERMS)
    assert np.abs(ours.c[-1] - 1 / J).max() > 0.01


@BOTH
@pytest.mark.parametrize("iterations", [1, 2])
def test_fewer_iterations_are_the_first_of_more(kind, loop, coupling, iterations):
    inputs = example()
    expected = loop(*inputs, iterations)
    assert_traces_agree(traced(kind(iterations), *inputs), expected, TERMS)
    with jax.enable_x64(True):
        routed = kind(iterations)(*map(jnp.asarray, inputs))
    v = expected.v[-1]
    for ours, theirs in zip(routed, (v, length(v), getattr(expected, coupling)[-1]), strict=True):
        assert_close(ours, theirs, reduction_length=TERMS)


@BOTH
def test_gradients_flow_through_every_iteration(kind, loop, coupling):
    def last(**inputs):
        v = loop(**inputs).v[-1]
        return v, length(v)

    votes, activation = example()
    assert_slopes_agree(kind(), last, {"votes": votes, "activation": activation}, TERMS)


def test_the_default_squash_is_that_of_the_code_and_others_may_be_given():
    votes, activation = example()
    assert create_routing("kde-dynamic") == KDEDynamic(3, half_length=math.sqrt(0.5))
    by_element = KDEDynamic(1, half_length=1, squash={"axis": "element"})
    assert by_element.squash == Squash("element")
    ours = traced(by_element, votes, activation)
    mean = votes.mean(axis=0)
    assert_close(ours.v[0], mean * np.abs(mean) / (1 + mean**2), reduction_length=TERMS)


def test_what_sums_to_one():
    inputs = example()
    density, mixture = traced(KDEDynamic(5), *inputs), traced(KDEEM(5), *inputs)
    assert_close(density.w.sum(axis=1), np.ones((5, J)), reduction_length=I)
    for c in (density.c, mixture.c):
        assert_close(c.sum(axis=2), np.ones((5, I)), reduction_length=J)


def test_an_output_capsule_that_all_have_left_is_zero():
    votes, activation = (jnp.asarray(x, jnp.float32) for x in example())
    trace = KDEDynamic().trace(
        votes, activation, softmax=lambda b: jax.nn.softmax(b).at[:, 0].set(0)
    )
    assert not trace.v[:, 0].any()
    assert trace.v[:, 1:].all()


def test_an_input_capsule_goes_where_its_vote_lies_among_the_others():
    votes, activation = example()
    votes[:, 0] = votes[0, 0]
    c = traced(KDEDynamic(5), votes, activation).c
    assert (np.diff(c[..., 0], axis=0) > 0).all()


def test_an_input_capsule_that_is_off_has_no_part_in_a_mixture():
    votes, activation = example()
    other = votes.copy()
    other[2] = 7.0
    activation[2] = 0
    ours, theirs = (traced(KDEEM(), x, activation) for x in (votes, other))
    assert_close(ours.v, theirs.v, reduction_length=TERMS)
    assert np.abs(ours.c[-1, 2] - theirs.c[-1, 2]).max() > 0.01


def test_the_epsilon_of_a_mixture_is_added_to_its_masses():
    votes, activation = example()
    ours = traced(KDEEM(mass_epsilon=0.5), votes, activation)
    mean = np.einsum("i,ijd->jd", activation, votes) / J
    assert_close(ours.s[0], mean / (activation.sum() / J + 0.5), reduction_length=TERMS)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (KDEDynamic, {"iterations": 0}, "iterations must be .* 1, not 0"),
        (KDEDynamic, {"half_length": 0}, "half_length must be a number of more than 0, not 0"),
        (KDEDynamic, {"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
        (KDEEM, {"iterations": 0}, "iterations must be .* 1, not 0"),
        (KDEEM, {"bandwidth": -1}, "bandwidth must be a number of more than 0, not -1"),
        (KDEEM, {"mass_epsilon": 0}, "mass_epsilon must be a number of more than 0, not 0"),
        (KDEEM, {"half_length": True}, "half_length must be a number of more than 0, not True"),
        (KDEEM, {"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
    ],
)
def test_wrong_values_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
