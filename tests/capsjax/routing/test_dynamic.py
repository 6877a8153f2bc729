"""Dynamic routing against a loop in float64 NumPy, and what must hold for any votes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax import Squash, route, trace
from capsjax.routing import Dynamic, DynamicTrace
from tests.tolerance import assert_close

B, I, J, D = 4, 6, 3, 5  # noqa: E741
OPTIONS = [
    {"softmax_over": over, "shared_logits": shared, "squash": squash}
    for over, shared, squash in itertools.product(
        ["out", "in"], [False, True], [Squash(), Squash("element"), Squash("pose", 0.01, "square")]
    )
]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def numpy_squash(s, squash):
    n = np.abs(s) if squash.axis == "element" else np.linalg.norm(s, axis=-1, keepdims=True)
    return n**2 / (1 + n**2) * s / np.sqrt(n**2 + squash.epsilon)


def softmax(b, axis):
    e = np.exp(b - b.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def numpy_trace(votes, iterations, softmax_over="out", shared_logits=False, squash=Squash()):  # noqa: B008
    """Every iteration on a batch `[B, I, J, D]`, example by example: arrays `[B, R, ...]`."""
    batch = len(votes)
    b = [np.zeros(votes.shape[1:3]) for _ in range(batch)]
    steps = []
    for _ in range(iterations):
        c = [softmax(b_n, axis={"in": 0, "out": 1}[softmax_over]) for b_n in b]
        s = [(c_n[:, :, None] * u_hat).sum(axis=0) for c_n, u_hat in zip(c, votes, strict=True)]
        v = [numpy_squash(s_n, squash) for s_n in s]
        steps.append((np.stack(b), np.stack(c), np.stack(s), np.stack(v)))
        agreement = [(u_hat * v_n[None]).sum(-1) for u_hat, v_n in zip(votes, v, strict=True)]
        if shared_logits:
            agreement = [sum(agreement) / batch] * batch
        b = [b_n + a for b_n, a in zip(b, agreement, strict=True)]
    return DynamicTrace(*(np.stack(arrays, axis=1) for arrays in zip(*steps, strict=True)))


@functools.partial(jax.jit, static_argnums=0)
def routed_and_traced(routing, votes):
    routed = route(routing, votes, jnp.ones(votes.shape[:2], votes.dtype))
    return routed, trace(routing, votes, jnp.ones(votes.shape[:2], votes.dtype))


def run(routing, votes):
    return routed_and_traced(routing, jnp.asarray(votes, jnp.float32))[0]


def trace_of(routing, votes):
    return routed_and_traced(routing, jnp.asarray(votes, jnp.float32))[1]


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_iteration_is_that_of_a_plain_loop(options, iterations):
    votes = draw(B, I, J, D)
    routing = Dynamic(iterations, **options)
    expected = numpy_trace(votes, iterations, **options)

    # To compile all of them would take a minute, and without jit a scan cannot be empty.
    with jax.disable_jit(iterations not in (1, 3)):
        routed, traced = routed_and_traced(routing, jnp.asarray(votes, jnp.float32))
    for name, array, reference in zip(DynamicTrace._fields, traced, expected, strict=True):
        assert array.shape == reference.shape, name
        assert_close(array, reference, dtype="float32", reduction_length=I * D * iterations)

    n = I * D * iterations
    assert_close(routed.pose, expected.v[:, -1], dtype="float32", reduction_length=n)
    assert_close(routed.coupling, expected.c[:, -1], dtype="float32", reduction_length=n)
    lengths = np.linalg.norm(expected.v[:, -1], axis=-1)
    assert_close(routed.activation, lengths, dtype="float32", reduction_length=n)


@pytest.mark.parametrize("options", [{}, *OPTIONS[1:], {"detach": True}], ids=str)
def test_the_last_entry_of_a_trace_is_what_the_routing_returns(options):
    votes = draw(B, I, J, D)
    routing = Dynamic(3, **options)
    traced = trace_of(routing, votes)
    routed = run(routing, votes)
    assert_close(traced.v[:, -1], routed.pose)
    assert_close(traced.c[:, -1], routed.coupling)


def test_one_example_is_traced_without_a_batch():
    traced = Dynamic(2).trace(jnp.asarray(draw(I, J, D), jnp.float32), jnp.ones(I))
    assert [x.shape for x in traced] == [(2, I, J), (2, I, J), (2, J, D), (2, J, D)]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_coupling_coefficients_sum_to_one(seed, scale):
    votes = scale * draw(B, I, J, D, seed=seed)
    for over, axis in (("out", -1), ("in", -2)):
        coupling = run(Dynamic(3, softmax_over=over), votes).coupling
        total = jnp.sum(coupling, axis=axis)
        assert_close(total, np.ones(total.shape), dtype="float32", reduction_length=I)
        assert (coupling >= 0).all()


def test_a_leaky_softmax_has_a_further_logit_of_zero():
    votes = draw(B, I, J, D)
    traced = trace_of(Dynamic(3, leaky=True), votes)
    b = np.asarray(traced.b, np.float64)
    expected = softmax(np.pad(b, [(0, 0)] * 3 + [(1, 0)]), axis=-1)[..., 1:]
    assert_close(traced.c, expected, dtype="float32", reduction_length=J)
    assert (traced.c.sum(-1) < 1).all()


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(I)), over=st.sampled_from(["in", "out"]))
def test_permuting_input_capsules_permutes_the_coupling_and_nothing_else(order, over):
    votes, routing = draw(B, I, J, D), Dynamic(3, softmax_over=over)
    before, after = run(routing, votes), run(routing, votes[:, order])
    assert_close(after.pose, before.pose, reduction_length=I * D)
    assert_close(after.activation, before.activation, reduction_length=I * D)
    assert_close(after.coupling, before.coupling[:, np.asarray(order)], reduction_length=I * D)


@pytest.mark.parametrize("over", ["in", "out"])
def test_batch_mates_never_matter(over):
    votes, others = draw(B, I, J, D), draw(B, I, J, D, seed=1)
    others[0] = votes[0]
    routing = Dynamic(3, softmax_over=over)
    for ours, theirs in zip(run(routing, votes), run(routing, others), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("over", ["in", "out"])
def test_batch_mates_matter_where_logits_are_shared(over):
    votes, others = draw(B, I, J, D), draw(B, I, J, D, seed=1)
    others[0] = votes[0]
    routing = Dynamic(3, softmax_over=over, shared_logits=True)
    ours, theirs = run(routing, votes), run(routing, others)
    assert np.abs(ours.pose[0] - theirs.pose[0]).max() > 1e-3
    np.testing.assert_array_equal(ours.coupling[0], ours.coupling[-1])


def test_shared_logits_are_shared_by_all_leading_axes():
    votes = draw(6, I, J, D)
    routing = Dynamic(3, shared_logits=True)
    folded = jnp.asarray(votes.reshape(2, 3, I, J, D), jnp.float32)
    pose = route(routing, folded, jnp.ones((2, 3, I))).pose
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


def gradients(routing, votes, weights):
    """The gradient of a weighted sum of the poses with respect to the votes, in float64."""
    with jax.enable_x64(True):

        def scalar(votes):
            return jnp.sum(route(routing, votes, jnp.ones(votes.shape[:2])).pose * weights)

        return np.asarray(jax.jit(jax.grad(scalar))(jnp.asarray(votes)))


def numeric_gradient(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


@pytest.mark.parametrize("options", OPTIONS[::3], ids=str)
def test_gradients_flow_through_every_iteration(options):
    votes, weights = draw(2, I, J, 2), draw(2, J, 2, seed=1)
    gradient = gradients(Dynamic(3, **options), votes, weights)
    expected = numeric_gradient(
        lambda votes: np.sum(numpy_trace(votes, 3, **options).v[:, -1] * weights), votes
    )
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_detached_gradients_flow_through_the_last_iteration_only():
    votes, weights = draw(2, I, J, 2), draw(2, J, 2, seed=1)
    gradient = gradients(Dynamic(3, detach=True), votes, weights)
    coupling = numpy_trace(votes, 3).c[:, -1]  # a constant

    def last_iteration(votes):
        s = np.einsum("nij,nijd->njd", coupling, votes)
        return np.sum(numpy_squash(s, Squash()) * weights)

    expected = numeric_gradient(last_iteration, votes)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert np.abs(gradient - gradients(Dynamic(3), votes, weights)).max() > 1e-3


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
    votes = draw(B, I, J, D)
    coarse = jnp.asarray(votes, jnp.bfloat16)
    routed, traced = routed_and_traced(Dynamic(3), coarse)
    assert {x.dtype for x in (*routed, *traced)} == {jnp.dtype("float32")}
    expected = numpy_trace(np.asarray(coarse, np.float64), 3)
    assert_close(routed.pose, expected.v[:, -1], dtype="bfloat16", reduction_length=I * D)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations of dynamic routing must be .* at least 1, not 0"),
        ({"iterations": -3}, "at least 1, not -3"),
        ({"iterations": 2.0}, "must be an integer of at least 1, not 2.0"),
        ({"iterations": True}, "not True"),
        ({"softmax_over": "i"}, "unknown softmax_over 'i', choose from: in, out"),
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
