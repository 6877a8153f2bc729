"""The contract of routings: what follows from `iterations`, `first`, `again` and `outcome`."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Routed, Sizes, norm, route, trace
from capsjax.routing import Dynamic, DynamicPrior, IterativeRouting, RoutingInputs, UnsizedRouting
from capsjax.routing._base import name_of, needs_of
from tests.capsjax.routing.family import built
from tests.tolerance import assert_close

I, K, J, D = 5, 2, 3, 4  # noqa: E741
BATCH = 2


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Sum(NamedTuple):
    c: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class Growing(IterativeRouting):
    """Each iteration adds the votes once more, each time divided by its number."""

    needs = ("softmax", "pose")

    iterations: int = 3

    def prepare(self, inputs):
        return inputs._replace(votes=inputs.votes * inputs.pose[:, :1, None])

    def first(self, inputs):
        return Sum(inputs.softmax(jnp.zeros(inputs.votes.shape[:2])), inputs.votes.sum(0))

    def again(self, inputs, state, index):
        return Sum(state.c / 2, state.v + inputs.votes.sum(0) / jnp.float32(index + 1))


VOTES, ACTIVATION, POSE = draw(BATCH, I, J, D), jnp.ones((BATCH, I)), draw(BATCH, I, K, seed=1)


@pytest.mark.parametrize("iterations", [0, -3, 1.5])
def test_one_of_ones_own_iterates_at_least_once(iterations):
    with pytest.raises(ValueError, match="Growing: iterations must be an integer of at least 1"):
        Growing(iterations)


def test_call_trace_and_single_iterations_follow_from_the_four():
    routing, total = Growing(), (VOTES * POSE[:, :, :1, None]).sum(1)
    routed = route(routing, VOTES, ACTIVATION, pose=POSE)
    assert_close(routed.pose, total * (1 + 1 / 2 + 1 / 3), reduction_length=I)
    assert_close(routed.coupling, np.full((BATCH, I, J), 1 / J / 4), dtype="float32")
    assert_close(routed.activation, norm(routed.pose))
    states = trace(routing, VOTES, ACTIVATION, pose=POSE)
    assert states.v.shape == (BATCH, 3, J, D)
    assert_close(states.v[:, -1], routed.pose)

    now, before = routing.iterate(RoutingInputs(VOTES[0], ACTIVATION[0], POSE[0]))
    assert_close(now.pose, states.v[0, 0])
    other = RoutingInputs(VOTES[1], ACTIVATION[1], POSE[1])
    for index in (1, 2):
        now, before = routing.iterate(other, before)
        expected = states.v[0, 0] + total[1] * sum(1 / (n + 1) for n in range(1, index + 1))
        assert_close(now.pose, expected, reduction_length=I)


def test_one_iteration_is_the_first_and_needs_no_other():
    class Once(IterativeRouting):
        iterations = 1

        def first(self, inputs):
            return Sum(jnp.ones((I, J)), inputs.votes.sum(0))

    np.testing.assert_array_equal(Once()(VOTES[0], ACTIVATION[0]).pose, VOTES[0].sum(0))
    with pytest.raises(NotImplementedError):
        Once().again(None, None, 1)
    with pytest.raises(NotImplementedError):
        IterativeRouting().first(None)


def test_what_a_routing_needs_is_said_by_its_class_or_by_its_signature():
    def function(votes, activation, *, softmax=None, own=1):
        return Routed(votes[0], activation[:J], votes[..., 0])

    assert needs_of(Growing()) == ("pose", "softmax", "mask")
    assert needs_of(function) == ("softmax",)
    assert needs_of(functools.partial(function, own=2)) == ("softmax",)
    assert needs_of(lambda votes, activation: None) == ()
    by_position = (
        lambda votes, mask: None,
        lambda votes, activation, mask: None,
        lambda votes, activation, mask=None: None,
    )
    for wrong in by_position:
        with pytest.raises(ValueError, match="<lambda> takes 'mask' by position: .* keyword-only"):
            needs_of(wrong)
    with pytest.raises(ValueError, match="<lambda> needs 'own'; a routing may need: pose, softmax"):
        needs_of(lambda votes, activation, *, own: None)
    for call in (Growing(), functools.partial(route, Growing())):
        with pytest.raises(ValueError, match="Growing needs the poses of the input capsules"):
            call(VOTES[0], ACTIVATION[0])


def test_what_is_built_for_a_layer_is_told_from_what_routes():
    assert isinstance(DynamicPrior(), UnsizedRouting)
    assert not isinstance(Dynamic(), UnsizedRouting)
    with pytest.raises(ValueError, match=r"DynamicPrior has parameters: .* its build\(sizes, "):
        route(DynamicPrior(), VOTES, ACTIVATION)
    routing = built(DynamicPrior(), Sizes(I, K, J, D))
    assert name_of(routing) == "DynamicPrior"
    with pytest.raises(AttributeError):  # else a network in a file would have other iterations
        routing.iterations = 1
    with pytest.raises(ValueError, match=r"DynamicPrior for in_capsules=5, out_capsules=3 cannot"):
        route(routing, VOTES[:, :4, :2], ACTIVATION[:, :4])
