"""What layers with a routing share: votes, and the stack of them that is trained."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import (
    Capsules,
    ClassCaps,
    ConvCaps,
    DenseCaps,
    GridShape,
    Routed,
    create_routing,
    norm,
    route,
)
from capsjax.capsules import in_a_list
from capsjax.layers import Conv3dCaps
from capsjax.layers.routed import kernel_shape, make_votes, sum_votes
from capsjax.routing import Dynamic, route_dense
from capsjax.routing._batching import every_iteration
from tests.tolerance import assert_close


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("leading", [(2,), (2, 3, 4)])
def test_a_linear_vote_is_a_matrix_times_a_pose(leading):
    kernel, pose = draw(5, 3, 4, 6), draw(*leading, 5, 6, seed=1)
    votes = make_votes("linear", jnp.asarray(kernel, jnp.float32), jnp.asarray(pose, jnp.float32))
    assert_close(
        votes, np.einsum("ijdk,...ik->...ijd", kernel, pose), dtype="float32", reduction_length=6
    )


@pytest.mark.parametrize("leading", [(2,), (2, 3, 4)])
def test_a_matrix_vote_is_a_pose_times_a_matrix(leading):
    kernel, pose = draw(5, 3, 2, 2), draw(*leading, 5, 4, seed=1)
    votes = make_votes("matrix", jnp.asarray(kernel, jnp.float32), jnp.asarray(pose, jnp.float32))
    matrices = pose.reshape(*leading, 5, 1, 2, 2)
    expected = (matrices @ kernel).reshape(*leading, 5, 3, 4)
    assert_close(votes, expected, dtype="float32", reduction_length=2)


def test_shapes_of_the_matrices():
    assert kernel_shape("linear", 8, 16) == (16, 8)
    assert kernel_shape("matrix", 16, 16) == (4, 4)


@pytest.mark.parametrize("dims", [(8, 8), (16, 9), (9, 16)])
def test_poses_that_are_no_square_matrices_are_refused(dims):
    with pytest.raises(ValueError, match="needs poses that are square matrices"):
        kernel_shape("matrix", *dims)


def test_unknown_transforms_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown transform 'affine', choose from: linear, matrix"):
        kernel_shape("affine", 4, 4)


@pytest.mark.parametrize(("transform", "matrix"), [("linear", (4, 6)), ("matrix", (2, 2))])
@pytest.mark.parametrize("leading", [(2,), (2, 3, 4)])
def test_votes_are_added_up_in_one_product(transform, matrix, leading):
    kernel = jnp.asarray(draw(5, 3, *matrix), jnp.float32)
    pose = jnp.asarray(draw(*leading, 5, 6 if transform == "linear" else 4, seed=1), jnp.float32)
    expected = np.sum(np.asarray(make_votes(transform, kernel, pose), np.float64), axis=-3)
    assert_close(
        sum_votes(transform, kernel, pose), expected, dtype="float32", reduction_length=5 * 6
    )


BATCH = 2
GRID = GridShape(height=4, width=5, types=2, dim=4)
LAYERS = {
    "dense": (DenseCaps, (40, 4, 3, 4), "em", {}),
    "conv": (ConvCaps, (GRID, 3, 4), "inverted-attention", {"kernel_size": 2}),
    "conv, by patch": (ConvCaps, (GRID, 3, 4), "em", {"kernel_size": 3, "competition": "patch"}),
    "conv 3d": (Conv3dCaps, (GRID, 2, 4), "dynamic", {"kernel_size": 3}),
    "class": (ClassCaps, (GRID, 3, 4), "self-routing", {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_iterations_are_the_same_one_by_one_all_together_and_in_a_call(name):
    kind, sizes, routing, options = LAYERS[name]
    layer = kind(*sizes, routing=create_routing(routing), **options, rngs=nnx.Rngs(0))
    pose = jnp.asarray(draw(BATCH, *GRID), jnp.float32)
    below = Capsules(pose, jax.nn.sigmoid(pose[..., 0]))
    below = in_a_list(below) if name == "dense" else below

    @nnx.jit
    def run(layer, below):
        made = [layer.iterate(below)]
        for _ in range(1, layer.routing.iterations):
            made.append(layer.iterate(below, made[-1].state))
        return layer(below), layer.iterations(below), made

    (above, coupling), together, singly = run(layer, below)
    axis = together.coupling.ndim - 3  # after the batch and the positions
    for index, one in enumerate(singly):
        expected = [np.take(np.asarray(array), index, axis) for array in together]
        for ours, theirs in zip((*one.capsules, one.coupling), expected, strict=True):
            assert_close(ours.reshape(theirs.shape), theirs, reduction_length=3 * 40 * 4)
    for ours, theirs in zip((*above, coupling), expected, strict=True):
        assert_close(ours.reshape(theirs.shape), theirs, reduction_length=3 * 40 * 4)
    if len(singly) > 1:
        assert np.abs(singly[0].coupling - singly[-1].coupling).max() > 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_a_capsule_that_is_masked_has_no_part_and_no_coupling(name):
    kind, sizes, routing, options = LAYERS[name]
    layer = kind(*sizes, routing=routing, **options, rngs=nnx.Rngs(0))
    pose = jnp.asarray(draw(BATCH, *GRID), jnp.float32)
    below = Capsules(pose, jax.nn.sigmoid(pose[..., 0]))
    mask = jnp.asarray(draw(BATCH, *GRID[:3], seed=1) > 0).at[..., 1].set(False)
    if name == "dense":
        below, mask = in_a_list(below), mask.reshape(BATCH, -1)
    other = Capsules(*(np.array(array) for array in below))
    for array in other:
        array[~np.asarray(mask)] = np.nan

    @nnx.jit
    def run(layer, below, mask):
        return layer(below, mask=mask)

    (here, coupling), (there, coupling_there) = run(layer, below, mask), run(layer, other, mask)
    for ours, theirs in zip((*here, coupling), (*there, coupling_there), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (np.asarray(coupling).sum() > 0) & (np.asarray(coupling) == 0).any()
    if name == "dense":
        np.testing.assert_array_equal(np.asarray(coupling)[~np.asarray(mask)], 0)
    for ours, theirs in zip(
        jax.tree.leaves(run(layer, below, jnp.ones_like(mask))),
        jax.tree.leaves(nnx.jit(lambda layer, below: layer(below))(layer, below)),
        strict=True,
    ):
        assert_close(ours, theirs, reduction_length=40 * 4)


@pytest.mark.parametrize("implementation", ["xla", "recompute"])
def test_every_implementation_knows_a_mask(implementation):
    layer = DenseCaps(
        5, 4, 3, 4, routing="dynamic", implementation=implementation, rngs=nnx.Rngs(0)
    )
    pose = jnp.asarray(draw(BATCH, 5, 4), jnp.float32)
    mask = jnp.asarray([[True, False, True, True, False], [False, True, True, True, True]])
    (above, _), coupling = layer(Capsules(pose, norm(pose)), mask=mask)
    votes = layer.votes(pose)
    expected = route(Dynamic(), votes, norm(pose), mask=mask)
    for ours, theirs in ((above, expected.pose), (coupling, expected.coupling)):
        assert_close(ours, theirs, reduction_length=20)


EQUAL_SHARES = {
    "dense": (DenseCaps, (40, 4, 3, 4), {}),
    "dense matrices": (DenseCaps, (40, 4, 3, 4), {"transform": "matrix"}),
    "dense shared": (DenseCaps, (40, 4, 3, 4), {"shared": True}),
    "patch": (ConvCaps, (GRID, 3, 4), {"kernel_size": 3, "competition": "patch"}),
    "all": (ConvCaps, (GRID, 3, 4), {"kernel_size": 3}),
    "padded": (
        ConvCaps,
        (GRID, 3, 4),
        {"kernel_size": 3, "padding": "SAME", "competition": "patch", "transform": "matrix"},
    ),
}


@pytest.mark.parametrize(
    ("name", "routing", "masked"),
    [
        *((name, "uniform", masked) for name in EQUAL_SHARES for masked in (False, True)),
        ("dense", "inverted-attention", False),
        ("patch", "inverted-attention", True),
    ],
)
def test_equal_shares_of_poses_are_those_of_their_votes(name, routing, masked):
    """Of votes alone nobody makes the sum but the routing; in a layer it is made of poses."""
    kind, sizes, options = EQUAL_SHARES[name]
    layer = kind(*sizes, routing=routing, rngs=nnx.Rngs(0), **options)
    pose = jnp.asarray(draw(BATCH, *layer.input_shape), jnp.float32)
    below = Capsules(pose, norm(pose))
    mask = jnp.asarray(draw(*pose.shape[:-1], seed=1) > -0.5) if masked else None
    inputs = layer._inputs(below, mask, None)
    is_known = name in {"dense", "dense matrices", "patch", "padded"}
    assert (inputs.vote_sum is not None) == is_known
    without = layer._map(every_iteration, inputs._replace(vote_sum=None))
    for ours, theirs in zip(layer.iterations(below, mask=mask), without, strict=True):
        assert_close(ours, theirs, reduction_length=40 * 4)


@pytest.mark.parametrize("name", ["dense", "dense matrices", "patch"])
def test_no_votes_are_made_where_all_shares_are_equal(name):
    kind, sizes, options = EQUAL_SHARES[name]
    layer = kind(*sizes, routing="uniform", rngs=nnx.Rngs(0), **options)
    graph, state = nnx.split(layer)

    def loss(state, pose):
        capsules, _ = nnx.merge(graph, state)(Capsules(pose, norm(pose)))
        return jnp.sum(capsules.pose**2)

    pose = jnp.asarray(draw(8, *layer.input_shape), jnp.float32)  # more votes than matrices
    votes = jax.eval_shape(layer.votes, pose).size
    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(state, pose).compile()
    sizes = re.findall(r"f32\[([\d,]+)\]", program.as_text())
    assert max(math.prod(map(int, of.split(","))) for of in sizes) < votes


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_its_key_to_a_routing_that_draws(name):
    def drawing(votes, activation, *, softmax, key):  # with a softmax it may compete over all
        coupling = jax.random.uniform(key, votes.shape[:2])
        return Routed(votes.sum(0), coupling[0], coupling)

    kind, sizes, _, options = LAYERS[name]
    layer = kind(*sizes, routing=drawing, **options, rngs=nnx.Rngs(0))
    pose = jnp.ones((BATCH, *GRID))
    below = Capsules(pose, pose[..., 0])
    _, coupling = layer(in_a_list(below) if name == "dense" else below, key=jax.random.key(0))
    assert len(np.unique(coupling)) == coupling.size


@pytest.mark.parametrize(
    ("below", "message"),
    [
        (jnp.ones((2, 5, 4)), r"not an array of shape \[2, 5, 4\]: .* Capsules\(x, capsjax.norm"),
        ((Capsules(jnp.ones((2, 5, 4)), jnp.ones((2, 5))), 1), "coupling: give the first of the"),
        ([1, 2], "a layer takes Capsules.*, not a list"),
        (Capsules(jnp.ones((5, 4)), jnp.ones(5)), r"\[batch, 5, 4\], not \[5, 4\]: .* x\[None\]"),
        (
            Capsules(jnp.ones((2, 6, 4)), jnp.ones((2, 6))),
            r"poses must .*, not \[2, 6, 4\]: give su",
        ),
        (Capsules(jnp.ones((2, 5, 4)), jnp.ones((2, 6))), r"activations must .*, not \[2, 6\]"),
        (Capsules(jnp.ones((16, 5, 4)), jnp.ones((3, 5))), "of 16 examples, but activations of 3"),
    ],
)
def test_what_is_no_capsules_for_a_layer_is_told(below, message):
    layer = DenseCaps(5, 4, 3, 2, routing="uniform", rngs=nnx.Rngs(0))
    for call in (layer, layer.iterations, layer.iterate):
        with pytest.raises(ValueError, match=message):
            call(below)


@pytest.mark.parametrize("batch", [2, 16])  # which a CPU routes in another way
@pytest.mark.parametrize(
    "mask", [jnp.full((16, 5), -1), jnp.ones((1, 5), bool), jnp.ones((20, 5), bool)]
)
def test_what_is_no_mask_is_refused_whatever_routes(mask, batch):
    layer = DenseCaps(5, 4, 3, 2, routing="dynamic", rngs=nnx.Rngs(0))
    below = Capsules(jnp.ones((batch, 5, 4)), jnp.ones((batch, 5)))
    with pytest.raises(ValueError, match="a mask must be booleans of the shape of the activations"):
        layer(below, mask=mask)
    with pytest.raises(ValueError, match="a mask must be booleans of the shape of the activations"):
        route_dense(layer.routing, layer.kernel[...], *below, mask=mask)


def test_a_routing_that_does_not_iterate_has_one_iteration_and_no_state():
    def mean(votes, activation):
        pose = votes.mean(0)
        return Routed(pose, activation[:3], jnp.ones(votes.shape[:2]))

    layer = DenseCaps(4, 2, 3, 2, routing=mean, rngs=nnx.Rngs(0))
    below = Capsules(jnp.asarray(draw(BATCH, 4, 2), jnp.float32), jnp.ones((BATCH, 4)))
    above, coupling = layer(below)
    found = layer.iterations(below)
    assert_close(found.pose, above.pose[:, None], reduction_length=4)
    assert_close(found.coupling, coupling[:, None])
    with pytest.raises(ValueError, match="mean cannot take one iteration at a time: it is no Iter"):
        layer.iterate(below)
