"""The Pallas kernels, interpreted, against routing from votes; and for what they compile."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsjax.ops import fused_gpu, fused_tpu
from capsjax.ops.fused import route_fused
from capsjax.routing import Dynamic
from tests.capsjax.ops.dense_cases import SIZES, assert_as_from_votes, inputs, value_and_gradients


def assert_right(sizes, iterations, dtype):
    forms = [
        functools.partial(form.route, iterations=iterations, interpret=True)
        for form in (fused_gpu, fused_tpu)
    ]
    assert_as_from_votes(forms, Dynamic(iterations), *inputs(*sizes, dtype=dtype))


@pytest.mark.parametrize(
    ("sizes", "iterations", "dtype"),
    [
        ((131, 17, 2, 3, 8), 2, "float32"),  # an odd number of examples, in several tiles
        ((1, 5, 100, 4, 3), 1, "float32"),
        ((3, 33, 10, 16, 8), 3, "float32"),
        ((2, 16, 3, 4, 9), 2, "bfloat16"),
    ],
)
def test_values_and_gradients_at_the_edges(sizes, iterations, dtype):
    assert_right(sizes, iterations, dtype)


@settings(deadline=None, max_examples=3)
@given(sizes=SIZES, iterations=st.integers(1, 4), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_values_and_gradients_of_any_size(sizes, iterations, dtype):
    assert_right(sizes, iterations, dtype)


KERNELS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}
if jax.__version_info__ >= (0, 11):
    del KERNELS["cuda"]  # lowered only where a GPU says what it is


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [(131, 17, 2, 3, 8), (1, 5, 100, 4, 3), (256, 1152, 10, 16, 8)])
def test_forward_and_backward_lower_for_an_accelerator(sizes, dtype):
    run = jax.jit(
        functools.partial(value_and_gradients, functools.partial(route_fused, iterations=3))
    )
    traced = run.trace(*inputs(*sizes, dtype=dtype))
    for platform, kernel in KERNELS.items():
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count(f"custom_call @{kernel}") == 3, platform  # one forward, two backward


def test_any_other_platform_is_refused():
    traced = jax.jit(functools.partial(route_fused, iterations=1)).trace(*inputs(1, 2, 2, 2, 2))
    with pytest.raises(
        ValueError, match="'pallas' runs on a TPU or GPU alone, .* compiled for cpu: name 'rec"
    ):
        traced.lower(lowering_platforms=("cpu",))


def test_it_is_refused_outside_of_a_program_and_under_a_gradient_too():
    kernel, pose = inputs(1, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="'pallas' runs on a TPU or GPU alone"):
        route_fused(kernel, pose, iterations=1)
    with pytest.raises(ValueError, match="'pallas' runs on a TPU or GPU alone"):
        jax.grad(lambda pose: jnp.sum(route_fused(kernel, pose, iterations=1)[0]))(pose)


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("tpu", "no room for 1000 output capsules with matrices of 16x8, which need"),
        ("cuda", "no room for 1000 output capsules of dimension 16, which take 16384 registers"),
    ],
)
def test_too_many_capsules_for_the_chip_are_refused(platform, message):
    kernel, pose = jnp.zeros((1, 1000, 16, 8)), jnp.zeros((1, 1, 8))
    traced = jax.jit(functools.partial(route_fused, iterations=1)).trace(kernel, pose)
    with pytest.raises(ValueError, match=f"{message}.* compiled for {platform}: name 'recompute'"):
        traced.lower(lowering_platforms=(platform,))
