"""Routing by kernel density estimation against loops in float64 NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import (
    KernelMixtureRouting,
    KernelMixtureTrace,
    MeanShiftRouting,
    MeanShiftTrace,
    Squash,
    create_routing,
)
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


def squash(s, constant=0.5):
    n = math.sqrt((s**2).sum())
    return n / (constant + n**2) * s


def numpy_mean_shift(votes, iterations=3, constant=0.5):
    """FRMS, capsule by capsule."""
    steps, b = [], np.zeros((I, J))
    for _ in range(iterations):
        c = np.stack([softmax(row) for row in b])
        w, s, v, next_b = np.zeros((I, J)), np.zeros((J, D)), np.zeros((J, D)), b.copy()
        for j in range(J):
            w[:, j] = c[:, j] / c[:, j].sum()
            for i in range(I):
                s[j] += w[i, j] * votes[i, j]
            v[j] = squash(s[j], constant)
            for i in range(I):
                next_b[i, j] += 1 - ((squash(votes[i, j], constant) - v[j]) ** 2).sum()
        steps.append((b, c, w, s, v))
        b = next_b
    return MeanShiftTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


def numpy_kernel_mixture(votes, activation, iterations=3, bandwidth=0.5**0.5, constant=0.5):
    """FREM, capsule by capsule."""
    steps, log_pk = [], np.zeros((I, J))
    for _ in range(iterations):
        c = np.stack([softmax(row) for row in log_pk])
        m, s, v, next_log_pk = np.zeros(J), np.zeros((J, D)), np.zeros((J, D)), np.zeros((I, J))
        for j in range(J):
            m[j] = c[:, j] @ activation
            for i in range(I):
                s[j] += c[i, j] * activation[i] * votes[i, j] / (m[j] + 1e-5)
            v[j] = squash(s[j], constant)
            for i in range(I):
                distance = np.linalg.norm(squash(votes[i, j], constant) - v[j])
                kernel = math.exp(-((distance / bandwidth) ** 2) / 2)
                next_log_pk[i, j] = math.log((m[j] + 1e-5) * kernel)
        steps.append((log_pk, c, m, s, v))
        log_pk = next_log_pk
    return KernelMixtureTrace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


def assert_traces_agree(ours, expected):
    for name, array, reference in zip(expected._fields, ours, expected, strict=True):
        assert array.shape == reference.shape, name
        assert_close(array, reference, dtype="float64", reduction_length=TERMS)


@pytest.mark.parametrize("half_length", [math.sqrt(0.5), 1, 2])
def test_every_iteration_of_mean_shift_is_that_of_a_plain_loop(half_length):
    votes, activation = example()
    ours = traced(MeanShiftRouting(half_length=half_length), votes, activation)
    assert_traces_agree(ours, numpy_mean_shift(votes, constant=half_length**2))
    assert np.abs(ours.w[-1] - 1 / I).max() > 0.01


@pytest.mark.parametrize("iterations", [1, 2])
def test_fewer_iterations_of_mean_shift_are_the_first_of_more(iterations):
    votes, activation = example()
    expected = numpy_mean_shift(votes, iterations)
    routing = MeanShiftRouting(iterations)
    assert_traces_agree(traced(routing, votes, activation), expected)
    with jax.enable_x64(True):
        routed = routing(jnp.asarray(votes), jnp.asarray(activation))
    assert_close(routed.pose, expected.v[-1], reduction_length=TERMS)
    assert_close(routed.coupling, expected.w[-1], reduction_length=TERMS)
    lengths = np.linalg.norm(expected.v[-1], axis=1)
    assert_close(routed.activation, lengths, reduction_length=TERMS)


def test_the_default_squash_is_that_of_the_code_and_others_may_be_given():
    votes, activation = example()
    assert create_routing("kde-dynamic") == MeanShiftRouting(3, half_length=math.sqrt(0.5))
    by_element = MeanShiftRouting(1, half_length=1, squash={"axis": "element"})
    assert by_element.squash == Squash("element")
    ours = traced(by_element, votes, activation)
    mean = votes.mean(axis=0)
    assert_close(ours.v[0], mean * np.abs(mean) / (1 + mean**2), reduction_length=TERMS)


def test_the_weights_of_a_kernel_density_sum_to_one_over_the_input_capsules():
    votes, activation = example()
    trace = traced(MeanShiftRouting(5), votes, activation)
    assert_close(trace.w.sum(axis=1), np.ones((5, J)), reduction_length=I)
    assert_close(trace.c.sum(axis=2), np.ones((5, I)), reduction_length=J)


def test_an_output_capsule_that_all_have_left_is_zero():
    votes, activation = example()
    trace = MeanShiftRouting().trace(
        jnp.asarray(votes, jnp.float32),
        jnp.asarray(activation, jnp.float32),
        softmax=lambda b: jax.nn.softmax(b).at[:, 0].set(0),
    )
    assert not trace.v[:, 0].any()
    assert trace.v[:, 1:].all()


def test_an_input_capsule_goes_where_its_vote_lies_among_the_others():
    votes, activation = example()
    votes[:, 0] = votes[0, 0]
    c = traced(MeanShiftRouting(5), votes, activation).c
    assert (np.diff(c[..., 0], axis=0) > 0).all()


def test_gradients_of_mean_shift_flow_through_every_iteration():
    votes, activation = example()
    direction, _ = example(seed=1)

    def scalar(trace):
        return (trace.v[-1] * np.cos(np.arange(J * D)).reshape(J, D)).sum()

    def along(step):
        routing = MeanShiftRouting()
        return scalar(routing.trace(votes + step * direction, jnp.asarray(activation)))

    with jax.enable_x64(True):
        slope = float(jax.jit(jax.grad(along))(jnp.zeros(())))
    ahead, behind = (scalar(numpy_mean_shift(votes + h * direction)) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations of mean shift routing must be .* at least 1, not 0"),
        ({"half_length": 0}, "half_length must be a number of more than 0, not 0"),
        ({"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
    ],
)
def test_wrong_values_of_mean_shift_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MeanShiftRouting(**options)


@pytest.mark.parametrize(
    ("options", "of_loop"),
    [({}, {}), ({"bandwidth": 0.3}, {"bandwidth": 0.3}), ({"half_length": 1}, {"constant": 1})],
    ids=str,
)
def test_every_iteration_of_the_mixture_is_that_of_a_plain_loop(options, of_loop):
    votes, activation = example()
    ours = traced(KernelMixtureRouting(**options), votes, activation)
    assert_traces_agree(ours, numpy_kernel_mixture(votes, activation, **of_loop))
    assert np.abs(ours.c[-1] - 1 / J).max() > 0.01


@pytest.mark.parametrize("iterations", [1, 2])
def test_fewer_iterations_of_the_mixture_are_the_first_of_more(iterations):
    votes, activation = example()
    expected = numpy_kernel_mixture(votes, activation, iterations)
    with jax.enable_x64(True):
        routed = KernelMixtureRouting(iterations)(jnp.asarray(votes), jnp.asarray(activation))
    assert_close(routed.pose, expected.v[-1], reduction_length=TERMS)
    assert_close(routed.coupling, expected.c[-1], reduction_length=TERMS)
    lengths = np.linalg.norm(expected.v[-1], axis=1)
    assert_close(routed.activation, lengths, reduction_length=TERMS)


def test_the_coupling_of_a_mixture_sums_to_one_over_the_output_capsules():
    votes, activation = example()
    total = traced(KernelMixtureRouting(5), votes, activation).c.sum(axis=2)
    assert_close(total, np.ones((5, I)), reduction_length=J)


def test_an_input_capsule_that_is_off_has_no_part_in_a_mixture():
    votes, activation = example()
    other = votes.copy()
    other[2] = 7.0
    activation[2] = 0
    ours, theirs = (traced(KernelMixtureRouting(), x, activation) for x in (votes, other))
    assert_close(ours.v, theirs.v, reduction_length=TERMS)
    assert np.abs(ours.c[-1, 2] - theirs.c[-1, 2]).max() > 0.01


def test_the_epsilon_of_a_mixture_is_added_to_its_masses():
    votes, activation = example()
    ours = traced(KernelMixtureRouting(mass_epsilon=0.5), votes, activation)
    mean = np.einsum("i,ijd->jd", activation, votes) / J
    assert_close(ours.s[0], mean / (activation.sum() / J + 0.5), reduction_length=TERMS)


def test_gradients_of_a_mixture_flow_through_every_iteration():
    inputs, directions = example(), example(seed=1)

    def scalar(trace):
        return (trace.v[-1] * np.cos(np.arange(J * D)).reshape(J, D)).sum()

    def shifted(steps):
        return [x + step * d for x, step, d in zip(inputs, steps, directions, strict=True)]

    with jax.enable_x64(True):
        slopes = jax.jit(jax.grad(lambda h: scalar(KernelMixtureRouting().trace(*shifted(h)))))
        ours = np.asarray(slopes(jnp.zeros(2)))
    for argument in range(2):
        step = 1e-5 * np.eye(2)[argument]
        ahead, behind = (scalar(numpy_kernel_mixture(*shifted(h))) for h in (step, -step))
        np.testing.assert_allclose(ours[argument], (ahead - behind) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations of kernel mixture routing must be .* at least 1, not 0"),
        ({"bandwidth": -1}, "bandwidth must be a number of more than 0, not -1"),
        ({"mass_epsilon": 0}, "mass_epsilon must be a number of more than 0, not 0"),
        ({"half_length": True}, "half_length must be a number of more than 0, not True"),
        ({"squash": 1}, "squash must be a Squash or a dict of its fields, not 1"),
    ],
)
def test_wrong_values_of_a_mixture_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        KernelMixtureRouting(**options)
