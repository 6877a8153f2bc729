"""Self-routing against loops over capsules in float64 NumPy, and what its paper says of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, create_routing, route, trace
from capsjax.routing import SelfRouting
from tests.capsjax.routing.family import draw
from tests.tolerance import assert_close

SIZES = Sizes(in_capsules=6, in_dim=4, out_capsules=3, out_dim=5)
I, K, J, D = SIZES  # noqa: E741
BATCH = 2
TERMS = I * K * D


def make(seed=0, **options):
    routing = SelfRouting(**options).build(SIZES, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    random = np.random.default_rng(seed)
    routing.kernel[...] = jnp.asarray(random.standard_normal((I, J, K)), jnp.float32)
    routing.bias[...] = jnp.asarray(random.standard_normal((I, J)), jnp.float32)
    return routing


def numpy_self_routing(kernel, bias, votes, activation, pose):
    """One example, capsule by capsule: logits, c, a, u."""
    kernel, bias, votes, activation, pose = (
        np.asarray(x, np.float64) for x in (kernel, bias, votes, activation, pose)
    )
    logits, c, a, u = np.zeros((I, J)), np.zeros((I, J)), np.zeros(J), np.zeros((J, D))
    for i in range(I):
        for j in range(J):
            logits[i, j] = sum(kernel[i, j, k] * pose[i, k] for k in range(K)) + bias[i, j]
        c[i] = np.exp(logits[i]) / np.exp(logits[i]).sum()
    for j in range(J):
        mass = sum(c[i, j] * activation[i] for i in range(I))
        a[j] = mass / activation.sum()
        u[j] = sum(c[i, j] * activation[i] * votes[i, j] for i in range(I)) / mass
    return logits, c, a, u


@functools.partial(jax.jit, static_argnums=0)
def compiled(graphdef, state, votes, activation, pose):
    routing = nnx.merge(graphdef, state)
    arguments = routing, votes, activation
    return route(*arguments, pose=pose), trace(*arguments, pose=pose)


def run(routing, inputs):
    return compiled(*nnx.split(routing), *inputs)


def test_every_stage_is_that_of_plain_loops():
    routing, inputs = make(), draw(BATCH, SIZES)
    routed, traced = run(routing, inputs)
    for n, example in enumerate(zip(*inputs, strict=True)):
        expected = numpy_self_routing(routing.kernel[...], routing.bias[...], *example)
        for name, array, reference in zip(traced._fields, traced, expected, strict=True):
            assert array.shape == (BATCH, 1, *reference.shape), name
            assert_close(array[n, 0], reference, dtype="float32", reduction_length=TERMS)
        _, c, a, u = expected
        for ours, theirs in zip(routed, (u, a, c), strict=True):
            assert_close(ours[n], theirs, dtype="float32", reduction_length=TERMS)


def test_activations_are_class_probabilities_and_coupling_is_shared_out():
    routed, _ = run(make(), draw(BATCH, SIZES))
    assert_close(routed.activation.sum(-1), np.ones(BATCH), dtype="float32", reduction_length=I * J)
    assert_close(routed.coupling.sum(-1), np.ones((BATCH, I)), dtype="float32", reduction_length=J)


def test_training_begins_with_uniform_coupling():
    routing = create_routing("self-routing")
    routing = routing.build(SIZES, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert (routing.kernel.shape, routing.bias.shape) == ((I, J, K), (I, J))
    assert routing.kernel.dtype == routing.bias.dtype == jnp.bfloat16
    inputs = draw(BATCH, SIZES)
    routed, _ = run(routing, inputs)
    assert_close(routed.coupling, np.full((BATCH, I, J), 1 / J), dtype="float32")
    weights = inputs.activation / inputs.activation.sum(axis=1, keepdims=True)
    mean = np.einsum("bi,bijd->bjd", weights, inputs.votes)
    assert_close(routed.pose, mean, reduction_length=I)


def test_coupling_depends_on_its_own_capsule_alone():
    inputs = draw(BATCH, SIZES)
    before, _ = run(make(), inputs)
    changed = inputs._replace(votes=inputs.votes + 1, pose=inputs.pose.copy())
    changed.pose[:, 0] += 1
    after, _ = run(make(), changed)
    np.testing.assert_array_equal(after.coupling[:, 1:], before.coupling[:, 1:])
    assert np.abs(after.coupling[:, 0] - before.coupling[:, 0]).max() > 1e-3


def test_the_scale_of_activations_does_not_matter():
    inputs = draw(BATCH, SIZES)
    routed, _ = run(make(), inputs)
    faint, _ = run(make(), inputs._replace(activation=inputs.activation * np.float32(2.0**-30)))
    for ours, theirs in zip(faint, routed, strict=True):
        assert_close(ours, theirs, reduction_length=I)


def total(routing, inputs):
    """The sum of what is routed, and its gradients for parameters and inputs."""
    graphdef, state = nnx.split(routing)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def value_and_grad(state, inputs):
        votes, activation, pose = inputs
        routed = route(nnx.merge(graphdef, state), votes, activation, pose=pose)
        return jnp.sum(routed.pose) + jnp.sum(routed.activation[:, 0])

    return value_and_grad(state, jax.tree.map(jnp.asarray, inputs))


def test_where_nothing_is_active_nothing_comes_out_and_nothing_goes_back():
    inputs = draw(BATCH, SIZES)
    inputs.activation[0] = 0
    routed, _ = run(make(), inputs)
    assert not np.any(routed.pose[0])
    assert not np.any(routed.activation[0])
    _, (_, gradients) = total(make(), inputs)
    for gradient in gradients:
        assert not np.any(gradient[0])
        assert np.any(gradient[1])


def test_epsilon_says_what_counts_as_active():
    inputs = draw(BATCH, SIZES)._replace(activation=np.full((BATCH, I), 0.1, np.float32))
    # All activations make 0.6, and what an output capsule gets of them is less.
    routed, _ = run(make(epsilon=0.5), inputs)
    assert_close(routed.activation.sum(-1), np.ones(BATCH), dtype="float32", reduction_length=I * J)
    shares = routed.activation * 0.6
    for j in range(J):
        for n in range(BATCH):
            assert np.any(routed.pose[n, j]) == (shares[n, j] > 0.5)
    routed, _ = run(make(epsilon=0.7), inputs)
    assert not np.any(routed.activation)


@pytest.mark.parametrize("epsilon", [-1e-3, 2, "small", None, float("nan")])
def test_a_wrong_epsilon_is_refused(epsilon):
    with pytest.raises(ValueError, match="SelfRouting: epsilon must be a number from 0 to 1"):
        create_routing("self-routing", epsilon=epsilon)


def test_other_sizes_are_refused():
    routing, inputs = make(), draw(BATCH, SIZES)
    with pytest.raises(ValueError, match=r"SelfRouting for out_capsules=3 cannot route votes of"):
        route(routing, inputs.votes[:, :, 1:], inputs.activation, pose=inputs.pose)
    with pytest.raises(ValueError, match=r"of poses of shape \(6, 3\)"):
        route(routing, inputs.votes, inputs.activation, pose=inputs.pose[..., 1:])
