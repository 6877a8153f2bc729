"""Dense capsules: their votes, how they are routed, and by which implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, DenseCaps, norm, squash, trace
from capsjax.routing import Dynamic, DynamicPrior
from tests.tolerance import assert_close

BATCH = 2


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_votes_are_matrices_times_poses():
    layer = DenseCaps(7, 4, 3, 5, routing=Dynamic(), rngs=nnx.Rngs(0))
    pose = draw(BATCH, 7, 4)
    kernel = np.asarray(layer.kernel[...], np.float64)
    votes = np.zeros((BATCH, 7, 3, 5))
    for i in range(7):
        for j in range(3):
            votes[:, i, j] = pose[:, i].astype(np.float64) @ kernel[i, j].T
    assert_close(layer.votes(jnp.asarray(pose)), votes, dtype="float32", reduction_length=4)


def test_dense_capsules_route_their_votes():
    layer = DenseCaps(7, 4, 3, 5, routing=Dynamic(iterations=1), rngs=nnx.Rngs(0))
    pose = jnp.asarray(draw(BATCH, 7, 4))
    capsules, coupling = layer(Capsules(pose, norm(pose)))
    assert_close(coupling, np.full((BATCH, 7, 3), 1 / 3), dtype="float32")
    expected = squash(jnp.sum(layer.votes(pose), axis=1) / 3)
    assert_close(capsules.pose, expected, reduction_length=7)
    np.testing.assert_array_equal(capsules.activation, norm(capsules.pose))


def test_without_matrices_a_capsule_votes_for_its_own_pose():
    layer = DenseCaps(7, 4, 3, 4, routing=Dynamic(), transform=None, rngs=nnx.Rngs(0))
    assert not nnx.state(layer, nnx.Param)
    pose = draw(BATCH, 7, 4)
    np.testing.assert_array_equal(layer.votes(jnp.asarray(pose)), np.stack([pose] * 3, axis=2))
    capsules, _ = layer(Capsules(jnp.asarray(pose), norm(jnp.asarray(pose))))
    expected = squash(jnp.sum(jnp.asarray(pose), axis=1, keepdims=True) / 3)
    assert_close(capsules.pose, jnp.tile(expected, (1, 3, 1)), reduction_length=7)


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"transform": None}])
def test_other_capsules_below_than_a_layer_is_made_for_are_refused(options):
    layer = DenseCaps(7, 4, 3, 4, routing=Dynamic(), **options, rngs=nnx.Rngs(0))
    pose, activation = jnp.ones((BATCH, 7, 4)), jnp.ones((BATCH, 7))
    for shape in ((8, 4), (6, 4), (7, 3), (1, 4)):
        other = jnp.ones((BATCH, *shape))
        for call in (layer, layer.iterations, lambda below: layer.votes(below.pose)):
            with pytest.raises(ValueError, match=r"poses must be of shape \[batch, 7, 4\], not"):
                call(Capsules(other, activation))
    with pytest.raises(ValueError, match=r"activations must be of shape \[batch, 7\], not \[2, 1"):
        layer(Capsules(pose, activation[:, :1]))


def test_a_routing_without_sizes_is_built_for_the_layer():
    layer = DenseCaps(7, 4, 3, 5, routing=DynamicPrior(), rngs=nnx.Rngs(0))
    assert layer.routing.prior.shape == (7, 3)


def test_the_layer_runs_the_implementation_that_it_is_given():
    def program(implementation):
        layer = DenseCaps(
            7, 4, 3, 5, routing=Dynamic(), implementation=implementation, rngs=nnx.Rngs(0)
        )
        capsules = Capsules(jnp.ones((BATCH, 7, 4)), jnp.ones((BATCH, 7)))
        return jax.jit(lambda: layer(capsules)).lower().as_text()

    votes = f"tensor<{BATCH}x7x3x5xf32>"
    assert votes in program("xla")
    assert votes not in program("recompute")


def test_votes_are_computed_in_the_layers_dtype():
    layer = DenseCaps(
        7,
        4,
        3,
        5,
        routing=Dynamic(),
        implementation="xla",
        dtype="bfloat16",
        rngs=nnx.Rngs(0),
    )
    pose = jnp.asarray(draw(BATCH, 7, 4))
    capsules, _ = layer(Capsules(pose, norm(pose)))
    assert layer.votes(pose).dtype == jnp.bfloat16
    expected = trace(Dynamic(), layer.votes(pose), jnp.ones(pose.shape[:2])).v[:, -1]
    assert_close(capsules.pose, expected, reduction_length=7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DenseCaps(4, 4, -1, 4, routing=Dynamic(), rngs=nnx.Rngs(0)),
            "out_capsules must be an integer of at least 1, not -1",
        ),
        (
            lambda: DenseCaps(4, 4, 4, 5, routing=Dynamic(), transform=None, rngs=nnx.Rngs(0)),
            "transform=None leaves poses as they are, so out_dim is in_dim, here 5 and 4",
        ),
        (
            lambda: DenseCaps(4, 4, 4, 4, routing=4, rngs=nnx.Rngs(0)),
            r"a name of list_routings\(\) .* such as create_routing\('dynamic'\), not 4",
        ),
        (
            lambda: DenseCaps(
                4, 4, 4, 4, routing=DynamicPrior(), implementation="recompute", rngs=nnx.Rngs(0)
            ),
            "'recompute' computes a Dynamic .*, not DynamicPrior, for which there is: xla",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
