"""The Pallas kernels, interpreted, against routing from votes; and that they compile for a TPU."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax import DynamicRouting
from capsjax.ops.fused import route_fused
from tests.capsjax.ops.dense_cases import SIZES, assert_as_from_votes, inputs, value_and_gradients


def assert_right(sizes, iterations, dtype):
    function = functools.partial(route_fused, iterations=iterations, interpret=True)
    routing = DynamicRouting(iterations)
    assert_as_from_votes(function, routing, *inputs(*sizes, dtype=dtype))


@pytest.mark.parametrize(
    ("sizes", "iterations", "dtype"),
    [
        ((131, 17, 2, 3, 8), 2, "float32"),  # two tiles of examples, the second nearly empty
        ((1, 5, 100, 4, 3), 1, "float32"),
        ((3, 33, 10, 16, 8), 5, "float32"),
        ((2, 16, 3, 4, 9), 4, "bfloat16"),
    ],
)
def test_values_and_gradients_at_the_edges(sizes, iterations, dtype):
    assert_right(sizes, iterations, dtype)


@settings(deadline=None, max_examples=3)
@given(sizes=SIZES, iterations=st.integers(1, 5), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_values_and_gradients_of_any_size(sizes, iterations, dtype):
    assert_right(sizes, iterations, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [(131, 17, 2, 3, 8), (1, 5, 100, 4, 3), (256, 1152, 10, 16, 8)])
def test_forward_and_backward_lower_for_a_tpu(sizes, dtype):
    function = functools.partial(route_fused, iterations=3)
    run = jax.jit(lambda *x: value_and_gradients(function, *x))
    text = run.trace(*inputs(*sizes, dtype=dtype)).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 3  # one forward, two backward


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_any_other_platform_is_refused(platform):
    traced = jax.jit(functools.partial(route_fused, iterations=1)).trace(*inputs(1, 2, 2, 2, 2))
    with pytest.raises(ValueError, match=f"'pallas' runs on a TPU, not on {platform}: name 'rec"):
        traced.lower(lowering_platforms=(platform,))


def test_it_is_refused_outside_of_a_program_too():
    with pytest.raises(ValueError, match="'pallas' runs on a TPU, not on cpu"):
        route_fused(*inputs(1, 2, 2, 2, 2), iterations=1)


def test_too_many_capsules_for_the_chip_are_refused():
    kernel, pose = jnp.zeros((1, 1000, 16, 8)), jnp.zeros((1, 1, 8))
    with pytest.raises(ValueError, match="no room for 1000 output .* name 'recompute' instead"):
        route_fused(kernel, pose, iterations=1)
