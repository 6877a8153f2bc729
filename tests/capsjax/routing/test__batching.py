"""`route` and `map_examples`: any number of leading axes, any routing, clear refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from capsjax import Routed, Sizes, norm, route, trace
from capsjax.routing import EXAMPLES, Dynamic, SelfRouting, map_examples
from tests.capsjax.routing.family import built
from tests.tolerance import assert_close

I, J, D = 5, 3, 4  # noqa: E741


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@dataclasses.dataclass(frozen=True)
class WeightedMean:
    """A routing in a few lines: what the input capsules are sure of counts more."""

    def __call__(self, votes, activation):
        coupling = jnp.broadcast_to(jax.nn.softmax(activation)[:, None], votes.shape[:2])
        pose = jnp.einsum("ij,ijd->jd", coupling, votes)
        return Routed(pose, norm(pose), coupling)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 1, 3)])
def test_a_custom_routing_is_mapped_over_all_leading_axes(leading):
    votes, activation = draw(*leading, I, J, D), draw(*leading, I, seed=1)
    routed = route(WeightedMean(), votes, activation)
    assert routed.pose.shape == (*leading, J, D)
    assert routed.activation.shape == (*leading, J)
    assert routed.coupling.shape == (*leading, I, J)

    weights = np.exp(np.asarray(activation, np.float64))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("...i,...ijd->...jd", weights, np.asarray(votes, np.float64))
    assert_close(routed.pose, expected, dtype="float32", reduction_length=I)


def test_a_plain_function_and_a_partial_are_routings():
    votes, activation = draw(2, I, J, D), draw(2, I)
    for routing in (lambda *example: WeightedMean()(*example), functools.partial(WeightedMean())):
        assert route(routing, votes, activation).pose.shape == (2, J, D)


def test_a_routing_is_differentiated_and_compiled_through_route():
    votes, activation = draw(2, I, J, D), draw(2, I)

    @jax.jit
    @jax.grad
    def gradient(votes):
        return jnp.sum(route(WeightedMean(), votes, activation).pose)

    weights = jax.nn.softmax(activation)
    expected = jnp.broadcast_to(weights[:, :, None, None], votes.shape)
    assert_close(gradient(votes), expected)


def test_votes_that_are_no_floats_are_refused():
    """Whose shares, as whole numbers, would be zero."""
    votes = jnp.ones((2, 6, 3, 4), jnp.int32)
    with pytest.raises(ValueError, match="votes must be floats, not int32"):
        route(Dynamic(), votes, jnp.ones((2, 6)))


@pytest.mark.parametrize(
    ("votes", "activation"),
    [((I, J), (I,)), ((2, I, J, D), (I,)), ((2, I, J, D), (2, J)), ((I, J, D), (2, I))],
)
def test_shapes_that_do_not_belong_together_are_refused(votes, activation):
    with pytest.raises(ValueError, match=r"votes \[\.\.\., I, J, D\] and activations"):
        route(WeightedMean(), jnp.zeros(votes), jnp.zeros(activation))


def test_what_is_no_routing_or_has_no_trace_is_named():
    votes, activation = draw(2, I, J, D), draw(2, I)
    for wrong in ("dynamic", Dynamic):
        with pytest.raises(ValueError, match="routing must be an object such as create_routing"):
            route(wrong, votes, activation)
    with pytest.raises(ValueError, match="WeightedMean has no trace: it is no IterativeRouting"):
        trace(WeightedMean(), votes, activation)


def test_poses_of_other_capsules_than_those_that_vote_are_refused():
    """A single one would be taken for all of them."""
    routing = built(SelfRouting(), Sizes(I, D, J, D))
    votes, activation, pose = draw(2, I, J, D), draw(2, I), draw(2, I, D)
    assert route(routing, votes, activation, pose=pose).pose.shape == (2, J, D)
    for wrong in (pose[:, :1], pose[..., 0], pose[:, 0, 0]):
        with pytest.raises(ValueError, match=r"SelfRouting takes poses \[I, K\] of each of the 5"):
            route(routing, votes, activation, pose=wrong)


@pytest.mark.parametrize(
    ("field", "shape"), [("pose", (J,)), ("activation", (J, D)), ("coupling", (J, I))]
)
def test_a_routing_that_returns_a_wrong_shape_is_named(field, shape):
    class Crooked:
        def __call__(self, votes, activation):
            return WeightedMean()(votes, activation)._replace(**{field: jnp.zeros(shape)})

    message = rf"Crooked returned {field} of shape .*, expected "
    with pytest.raises(ValueError, match=message):
        route(Crooked(), draw(2, I, J, D), draw(2, I))


def test_a_routing_that_returns_something_else_is_named():
    def poses_only(votes, activation):
        return jnp.sum(votes, axis=0)

    with pytest.raises(ValueError, match="poses_only returned a .*, expected a Routed"):
        route(poses_only, draw(2, I, J, D), draw(2, I))


def test_a_function_without_a_mask_is_not_called_with_one_and_one_with_it_is():
    votes, activation, mask = draw(2, I, J, D), draw(2, I), jnp.asarray([[True] + 4 * [False]] * 2)
    with pytest.raises(ValueError, match="WeightedMean knows no mask: name mask, or the softmax"):
        route(WeightedMean(), votes, activation, mask=mask)
    with pytest.raises(
        ValueError, match=r"booleans of the shape of .* \[2, 5\], not int32 \[2, 5\]"
    ):
        route(WeightedMean(), votes, activation, mask=mask.astype(int))

    def masked_mean(votes, activation, *, mask):
        coupling = jnp.broadcast_to(mask[:, None].astype(votes.dtype), votes.shape[:2])
        return Routed(votes.sum(0), activation[:J], coupling)

    assert_close(route(masked_mean, votes, activation, mask=mask).pose, votes[:, 0])


@dataclasses.dataclass(frozen=True)
class Dropping:
    """Some capsules above get nothing, drawn anew for each example."""

    share: float = 0.5

    def __call__(self, votes, activation, *, softmax, key):
        coupling = softmax(jnp.zeros(votes.shape[:2]))
        if key is not None:
            kept = jax.random.bernoulli(key, 1 - self.share, coupling.shape)
            coupling = jnp.where(kept, coupling, 0)
        pose = jnp.einsum("ij,ijd->jd", coupling, votes)
        return Routed(pose, norm(pose), coupling)


def test_a_routing_draws_from_a_key_that_is_another_for_each_example():
    votes, activation = draw(20, I, J, D), draw(20, I)
    key = jax.random.key(0, impl="threefry2x32")
    drawn = route(Dropping(), votes, activation, key=key)
    assert len({tuple(row) for row in np.asarray(drawn.coupling.reshape(20, -1))}) == 20
    assert set(np.unique(drawn.coupling)) == {0, np.float32(1 / J)}
    again = route(Dropping(), votes[3:5], activation[3:5], key=jax.random.split(key, 20)[3:5])
    np.testing.assert_array_equal(again.coupling, drawn.coupling[3:5])
    assert_close(route(Dropping(), votes, activation).coupling, np.full((20, I, J), 1 / J, "f4"))
    by_four = route(
        Dropping(),
        votes.reshape(5, 4, I, J, D),
        activation.reshape(5, 4, I),
        key=jax.random.split(key, 5),
    )
    assert len({tuple(row) for row in np.asarray(by_four.coupling.reshape(20, -1))}) == 20
    with pytest.raises(ValueError, match=r"of the first axes of \[20\], not \[3\]"):
        route(Dropping(), votes, activation, key=jax.random.split(key, 3))
    with pytest.raises(ValueError, match=r"a key must be one of jax.random.key, not uint32 \[2\]"):
        route(Dropping(), votes, activation, key=jnp.zeros(2, jnp.uint32))


def test_examples_can_reduce_over_the_axis_of_their_batch():
    votes = draw(2, 3, I, J, D)
    mean = map_examples(lambda votes: lax.pmean(votes, EXAMPLES), votes)
    expected = np.broadcast_to(np.asarray(votes, np.float64).mean((0, 1)), votes.shape)
    assert_close(mean, expected, dtype="float32", reduction_length=6)


def test_map_examples_takes_further_arrays_and_returns_a_tree():
    votes, weights = draw(2, 3, I, J, D), draw(2, 3)
    tree = map_examples(lambda v, w: {"sum": v.sum() * w, "shape": v}, votes, weights)
    assert tree["shape"].shape == votes.shape
    expected = np.asarray(votes, np.float64).sum((2, 3, 4)) * np.asarray(weights, np.float64)
    assert_close(tree["sum"], expected, dtype="float32", reduction_length=I * J * D)


def test_map_examples_refuses_arrays_of_other_batches():
    with pytest.raises(ValueError, match=r"votes must be \[\.\.\., I, J, D\], not \(5, 3\)"):
        map_examples(lambda votes: votes, jnp.zeros((I, J)))
    with pytest.raises(ValueError, match=r"leading axes \(2,\), an array of shape \(3,\) has not"):
        map_examples(lambda votes, x: votes, jnp.zeros((2, I, J, D)), jnp.zeros(3))
