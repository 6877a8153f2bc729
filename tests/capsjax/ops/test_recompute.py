"""Routing without votes against routing with them, and what its program holds in memory."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax import Squash
from capsjax.ops import recompute
from capsjax.routing import Dynamic, route_dense
from tests.capsjax.ops.dense_cases import SIZES, assert_as_from_votes, inputs


def options_of(routing):
    return {
        "iterations": routing.iterations,
        "squash": routing.squash,
        "detach": routing.detach,
    }


@settings(deadline=None, max_examples=3)
@given(
    sizes=SIZES,
    dtype=st.sampled_from(["float32", "bfloat16"]),
    routing=st.builds(
        Dynamic,
        iterations=st.integers(1, 5),
        detach=st.booleans(),
        squash=st.sampled_from([Squash(), Squash("element"), Squash("capsules", 0.01, "square")]),
    ),
    tile=st.integers(1, 20_000),
)
def test_values_and_gradients_are_those_from_votes(sizes, dtype, routing, tile):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recompute, "CPU_TILE_BYTES", tile)
        function = functools.partial(recompute.route_recomputing, **options_of(routing))
        assert_as_from_votes([function], routing, *inputs(*sizes, dtype=dtype))


def test_float64():
    with jax.enable_x64(True):
        function = functools.partial(
            recompute.route_recomputing, iterations=3, squash=Dynamic().squash
        )
        kernel, pose = inputs(2, 7, 3, 4, 5, dtype="float64")
        assert function(kernel, pose)[0].dtype == jnp.float64
        assert_as_from_votes([function], Dynamic(), kernel, pose)


def test_capsules_of_nothing_have_a_gradient():
    function = functools.partial(recompute.route_recomputing, iterations=3, squash=Squash())
    assert_as_from_votes([function], Dynamic(), jnp.ones((4, 3, 2, 2)), jnp.zeros((2, 4, 2)))


def training_program(implementation, batch):
    """A compiled step of votes and routing of the paper's sizes, from values to gradients."""

    def loss(kernel, pose):
        activation = jnp.zeros(pose.shape[:2])
        routed = route_dense(Dynamic(), kernel, pose, activation, implementation=implementation)
        return jnp.sum(routed.pose**2)

    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((1152, 10, 16, 8), (batch, 1152, 8))]
    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()


def test_a_training_step_takes_a_third_of_the_memory_at_most():
    ours, theirs = (
        training_program(name, 1024).memory_analysis().temp_size_in_bytes
        for name in ("recompute", "xla")
    )
    assert ours <= theirs / 3


@pytest.mark.parametrize(("platform", "tiles"), [("cpu", 36), ("cuda", 1), ("tpu", 1)])
def test_tiles_are_small_on_a_cpu_alone(platform, tiles):
    function = functools.partial(recompute.route_recomputing, iterations=2, squash=Squash())
    traced = jax.jit(lambda *x: function(*x)[0]).trace(*inputs(64, 1152, 10, 16, 8))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert f"tensor<{tiles}x{1152 // tiles}x8x64xf32>" in text
