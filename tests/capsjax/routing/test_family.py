"""What must hold for every routing, by its name: nobody adds one without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax import Sizes, list_routings
from tests.capsjax.routing.family import (
    SIZES,
    Inputs,
    draw,
    member,
    permuted,
    program,
    run,
    run_wide,
    weighted,
)
from tests.tolerance import assert_close

I, K, J, D = SIZES  # noqa: E741
BATCH = 4
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
    outputs = run(name, draw(BATCH))
    assert_alike(outputs.last, outputs.routed)
    assert outputs.routed.pose.shape == (BATCH, J, D)


@EVERY
@settings(max_examples=5)
@given(order=st.permutations(range(I)), seed=st.integers(0, 99))
def test_permuting_input_capsules_permutes_the_coupling_and_nothing_else(name, order, seed):
    order = np.asarray(order)
    inputs = draw(BATCH, seed=seed)
    turned = Inputs(*(x[:, order] for x in inputs))
    before = run_wide(name, inputs)
    after = run_wide(name, turned, permuted(member(name).parameters, I, order))
    assert_alike(after.routed.pose, before.routed.pose)
    assert_alike(after.routed.activation, before.routed.activation)
    assert_alike(after.routed.coupling, before.routed.coupling[:, order])


@EVERY
@settings(max_examples=5)
@given(order=st.permutations(range(J)), seed=st.integers(0, 99))
def test_permuting_output_capsules_permutes_the_outputs(name, order, seed):
    order = np.asarray(order)
    inputs = draw(BATCH, seed=seed)
    before = run_wide(name, inputs)
    after = run_wide(
        name,
        inputs._replace(votes=inputs.votes[:, :, order]),
        permuted(member(name).parameters, J, order),
    )
    assert_alike(after.routed.pose, before.routed.pose[:, order])
    assert_alike(after.routed.activation, before.routed.activation[:, order])
    assert_alike(after.routed.coupling, before.routed.coupling[:, :, order])


@EVERY
def test_batch_mates_never_matter(name):
    ours, theirs = draw(BATCH), draw(BATCH, seed=1)
    for array, other in zip(ours, theirs, strict=True):
        other[0] = array[0]
    for a, b in zip(
        jax.tree.leaves(run(name, ours)), jax.tree.leaves(run(name, theirs)), strict=True
    ):
        np.testing.assert_array_equal(a[0], b[0])


def edges():
    """A batch of inputs that break careless code."""
    inputs = draw(8)
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
    assert_finite(run(name, edges()))


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("sizes", [(1, 4, 3, 16), (6, 4, 1, 16)], ids=["one input", "one output"])
def test_a_single_capsule_is_finite_in_value_and_gradient(name, sizes):
    sizes = Sizes(*sizes)
    outputs = program(name, sizes)(member(name, sizes).parameters, draw(2, sizes))
    assert_finite(outputs)


@EVERY
def test_gradients_reach_votes_and_parameters(name):
    of_inputs, of_parameters = run(name, draw(BATCH)).gradients
    for gradient in (of_inputs.votes, *jax.tree.leaves(of_parameters)):
        assert np.abs(gradient).max() > 0


@EVERY
def test_coarse_votes_are_routed_in_float32(name):
    inputs = draw(BATCH)
    coarse = Inputs(*(jnp.asarray(x, jnp.bfloat16) for x in inputs))
    family = member(name)
    call = jax.jit(jax.vmap(functools.partial(family.call, family.parameters)))
    routed = call(*coarse)
    assert {x.dtype for x in routed} == {jnp.dtype("float32")}
    wide = call(*(x.astype(jnp.float32) for x in coarse))
    assert_alike(routed, wide, dtype="bfloat16")


@pytest.mark.slow
@EVERY
def test_every_transformation_agrees_with_the_plain_call(name):
    family, inputs = member(name), draw(BATCH)
    outputs = run(name, inputs)
    plain = family.call(family.parameters, *(jnp.asarray(x[0]) for x in inputs))
    assert_alike(jax.tree.map(lambda x: x[0], outputs.routed), plain)
    of_votes = jax.grad(lambda votes: weighted(family.call(family.parameters, votes, *rest)))
    rest = [jnp.asarray(x[0]) for x in inputs[1:]]
    gradient = of_votes(jnp.asarray(inputs.votes[0]))
    assert_alike(outputs.gradients[0].votes[0], gradient)

    spread = jax.pmap(
        lambda *example: family.call(family.parameters, *example), devices=jax.devices()[:BATCH]
    )
    assert_alike(spread(*inputs), outputs.routed)
