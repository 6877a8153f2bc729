"""What must hold for every routing, by its name: nobody adds one without it.

Each property is seen on all examples of a batch at once, by programs that are compiled once: the
whole in float32, and the call in float64 and bfloat16.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Sizes, create_routing, list_routings, route
from tests.capsjax import meshes
from tests.capsjax.routing.family import SIZES, Inputs, built, draw, family
from tests.tolerance import assert_close

I, K, J, D = SIZES  # noqa: E741
BATCH = 8
EVERY = pytest.mark.parametrize("name", list_routings())
# The longest way through any of them: five iterations, sums over all votes in each.
TERMS = 5 * I * J * D


def assert_alike(ours, theirs, **options):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert_close(a, b, reduction_length=TERMS, **options)


def assert_finite(tree):
    for path, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        assert np.isfinite(array).all(), jax.tree_util.keystr(path)


@EVERY
def test_the_last_iteration_of_the_trace_is_the_result(name):
    outputs = family(name).run(draw(BATCH))
    assert_alike(outputs.last, outputs.routed)
    assert outputs.routed.pose.shape == (BATCH, J, D)


@EVERY
def test_permuting_capsules_permutes_what_belongs_to_them_and_nothing_else(name):
    """Each example in another order; in float64, so that rounding hides nothing."""
    inputs, random = draw(BATCH), np.random.default_rng(1)
    of_inputs, of_outputs = (
        np.stack([random.permutation(n) for _ in range(BATCH)]) for n in (I, J)
    )

    def permuted(tree, size, orders):
        """Reordered along the axis of that size, where an array has one."""

        def turn(array):
            for axis in [axis for axis, n in enumerate(array.shape[1:], 1) if n == size]:
                shape = [1] * array.ndim
                shape[0], shape[axis] = BATCH, size
                array = np.take_along_axis(array, orders.reshape(shape), axis)
            return array

        return jax.tree.map(turn, tree)

    parameters = family(name).of_batch(inputs)
    with jax.enable_x64(True):
        before, turned_in, turned_out = (
            jax.device_get(
                family(name).forward(*jax.tree.map(lambda x: np.asarray(x, np.float64), arguments))
            )
            for arguments in (
                (parameters, inputs),
                permuted((parameters, inputs), I, of_inputs),
                permuted((parameters, inputs), J, of_outputs),
            )
        )
    assert_alike(turned_in, permuted(before, I, of_inputs))
    assert_alike(turned_out, permuted(before, J, of_outputs))


@EVERY
def test_batch_mates_never_matter(name):
    ours, theirs = draw(BATCH), draw(BATCH, seed=1)
    for array, other in zip(ours, theirs, strict=True):
        other[0] = array[0]
    ours, theirs = family(name).run(ours), family(name).run(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def edges():
    """A batch of inputs that break careless code."""
    inputs = draw(BATCH)
    votes, activation, pose = inputs
    votes[0] = 0
    votes[1] = votes[1, :1]  # all input capsules agree
    votes[2] = votes[2, :, :1]  # all output capsules get the same votes
    votes[3] *= 1e6
    votes[4] *= 1e-20
    activation[5] = 0  # no input capsule is there
    activation[6] = 1
    pose[7] = 0
    votes[7] = 0
    activation[7] = 0
    return inputs


@EVERY
def test_edge_cases_are_finite_in_value_and_gradient(name):
    assert_finite(family(name).run(edges()))


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("sizes", [(1, 4, 3, 16), (6, 4, 1, 16)], ids=["one input", "one output"])
def test_a_single_capsule_is_finite_in_value_and_gradient(name, sizes):
    sizes = Sizes(*sizes)
    assert_finite(family(name, sizes).run(draw(2, sizes)))


@EVERY
def test_gradients_reach_votes_and_parameters(name):
    of_inputs, of_parameters = family(name).run(draw(BATCH)).gradients
    assert np.abs(of_inputs.votes).max() > 0
    for gradient in jax.tree.leaves(of_parameters):
        is_learned = name != "random"
        assert (np.abs(gradient).max() > 0) == is_learned


@EVERY
def test_coarse_votes_are_routed_in_float32(name):
    coarse = Inputs(*(jnp.asarray(x, jnp.bfloat16) for x in draw(BATCH)))
    routed = family(name).forward(family(name).of_batch(coarse), coarse)
    assert {x.dtype for x in routed} == {jnp.dtype("float32")}
    wide = family(name).run(Inputs(*(np.asarray(x, np.float32) for x in coarse))).routed
    assert_alike(routed, wide, dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dynamic", "em", "inverted-attention", "self-routing", "variational-bayes"]
)
def test_every_transformation_agrees_with_the_plain_call(name):
    member, inputs = family(name), draw(BATCH)
    outputs = member.run(inputs)
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), inputs)
    (value, routed), gradient = jax.value_and_grad(member.loss, argnums=1, has_aux=True)(
        member.parameters, first
    )
    assert np.isfinite(value)
    assert_alike(jax.tree.map(lambda x: x[0], outputs.routed), routed)
    assert_alike(outputs.gradients[0].votes[0], gradient.votes)

    spread = jax.pmap(lambda inputs: member.call(member.parameters, inputs))
    assert_alike(spread(inputs), outputs.routed)


@pytest.mark.parametrize("mode", meshes.MODES)
@EVERY
def test_a_batch_is_spread_over_a_mesh_as_jax_does_by_default(name, mode):
    member, inputs = family(name), draw(BATCH)

    def loss(both, batch):
        parameters, scale = both
        routed = member.route(parameters, batch._replace(votes=scale * batch.votes))
        return jnp.sum(routed.pose**2) + jnp.sum(routed.activation)

    both = (member.parameters, jnp.ones(()))
    gradient, arguments = meshes.gradient(loss, mode, both, inputs)
    if name not in ("dynamic", "em"):  # traced, which is what is refused
        assert jax.tree.map(jnp.shape, both) == jax.tree.map(
            jnp.shape, jax.eval_shape(gradient, *arguments)
        )
        return
    assert_alike(gradient(*arguments), jax.jit(jax.grad(loss))(both, inputs))


@EVERY
def test_what_is_masked_has_no_part_in_anything(name):
    """As if it were not there, in all examples but the last, where nothing is; in float64."""
    kept = np.asarray([0, 2, 3, 5])
    mask = np.isin(np.arange(I), kept) & (np.arange(BATCH) < BATCH - 1)[:, None]
    member, fewer = family(name), family(name, SIZES._replace(in_capsules=len(kept)))
    parameters, inputs = jax.tree.map(
        lambda x: np.asarray(x, np.float64), (member.parameters, draw(BATCH))
    )
    left = Inputs(*(array[:-1, kept] for array in inputs))
    for array in inputs:
        array[~mask] = np.nan

    def loss(inputs, parameters):
        routed = member.route(parameters, inputs, mask=mask)
        return jnp.sum(routed.pose**2) + jnp.sum(routed.activation), routed

    with jax.enable_x64(True):
        gradients, masked = jax.device_get(
            jax.jit(jax.grad(loss, has_aux=True))(inputs, parameters)
        )
        parameters = jax.tree.map(lambda x: x[kept] if x.shape[:1] == (I,) else x, parameters)
        expected = jax.device_get(jax.jit(fewer.route)(parameters, left))
    assert_finite((gradients, masked))
    for array in (*gradients, masked.coupling):
        np.testing.assert_array_equal(array[~mask], 0)
    found = masked._replace(coupling=masked.coupling[:, kept])
    assert_alike(jax.tree.map(lambda x: x[:-1], found), expected)


@pytest.mark.parametrize("name", ["self-attention", "inverted-attention"])
def test_large_logits_over_a_root_that_is_no_power_of_two_are_finite(name):
    """Where the quotient is rounded in the largest logit, and not in the others, they are not."""
    routing = built(create_routing(name), Sizes(6, 4, 3, 5))
    votes = jnp.asarray(1e9 * np.random.default_rng(0).normal(size=(8, 6, 3, 5)), jnp.float32)
    assert_finite(jax.jit(route)(routing, votes, jnp.ones((8, 6))))
