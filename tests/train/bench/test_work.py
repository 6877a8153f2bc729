import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from train.bench.work import (
    _real_pairs,
    compiled_bytes,
    compiled_flops,
    compiled_forward_work,
    network_work,
    nominal_flops,
)
from train.config.fit_config import FitConfig

FLOAT = jnp.float32


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, FLOAT)


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_paper_s_network_has_the_work_counted_by_hand(iterations):
    config = FitConfig.of(routing_iterations=iterations)
    forward, training = network_work(config, (28, 28, 1), 10)
    first, second = 20 * 20 * 9 * 9 * 1 * 256, 6 * 6 * 9 * 9 * 256 * 256
    votes = 1152 * 10 * 16 * 8
    decoder = 160 * 512 + 512 * 1024 + 1024 * 784
    agreement = 1152 * 10 * 16  # a pass over the votes: sums, and scalar products in between
    passes = 2 * iterations - 1
    assert forward == 2 * (first + second + votes + decoder + passes * agreement)
    # Backward, each product has two of its size; the images have no gradient. Of the routing's
    # passes one has a constant coupling.
    without_routing = 2 * (2 * first + 3 * (second + votes + decoder))
    assert 2 * passes * agreement <= training - without_routing <= 3 * 2 * passes * agreement


def test_how_a_network_is_computed_changes_no_work(config):
    forward, training = network_work(config, (8, 8, 1), 3)
    half = config.changed(dtype="bfloat16")
    assert network_work(half, (8, 8, 1), 3) == (forward, training)


def test_two_classes_are_decoded_one_after_the_other(config):
    plain = network_work(config, (8, 8, 1), 3)
    two = network_work(config, (8, 8, 1), 3, labels_per_image=2)
    decoder = 2 * (3 * 4 * 8 + 8 * 64)  # poses to hidden to image, multiply and add
    assert two[0] - plain[0] == decoder


@given(
    size=st.integers(1, 9),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    low=st.integers(0, 3),
    high=st.integers(0, 3),
    spread=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
@settings(max_examples=100, deadline=None)
def test_pairs_are_those_that_a_convolution_of_ones_adds_up(
    size, window, stride, low, high, spread, dilation
):
    padded = (size - 1) * spread + 1 + low + high
    if padded < (window - 1) * dilation + 1:
        return
    line = np.zeros(padded)
    line[low : padded - high : spread] = 1
    outputs = range(0, padded - (window - 1) * dilation, stride)
    met = sum(line[at + k * dilation] for at in outputs for k in range(window))
    assert _real_pairs(size, window, stride, (low, high), spread, dilation) == met


def test_the_gradients_of_a_convolution_cost_what_it_costs():
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = shape(3, 11, 10, 4), shape(3, 3, 4, 6)
    forward = nominal_flops(convolve, x, kernel)
    assert forward == 2 * 3 * 5 * 4 * 3 * 3 * 4 * 6
    for wanted in (0, 1):
        gradient = jax.grad(lambda x, kernel: convolve(x, kernel).sum(), wanted)
        assert nominal_flops(gradient, x, kernel) == forward


def test_grouped_convolutions_share_the_work():
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    assert nominal_flops(convolve, shape(1, 5, 5, 4), shape(3, 3, 2, 6)) == 2 * 9 * 9 * 2 * 6


def test_loops_count_each_turn_and_platforms_their_common_form():
    def product(a, b):
        return a @ b

    a, b = shape(4, 4), shape(4, 4)
    once = nominal_flops(product, a, b)
    assert once == 2 * 4 * 4 * 4

    def loop(a, b):
        return lax.scan(lambda c, _: (c @ b, None), a, length=5)[0]

    assert nominal_flops(loop, a, b) == 5 * once
    assert nominal_flops(jax.jit(jax.checkpoint(product)), a, b) == once

    def for_platforms(a, b):
        return lax.platform_dependent(a, b, cpu=lambda a, b: a @ b @ b, default=product)

    assert nominal_flops(for_platforms, a, b) == once

    def either(a, b):
        return lax.cond(a[0, 0] > 0, product, lambda a, b: a, a, b)

    assert nominal_flops(either, a, b) == once


def test_what_nobody_uses_is_no_work():
    assert nominal_flops(lambda a, b: jax.vjp(jnp.matmul, a, b)[1](a)[0], *[shape(4, 4)] * 2) == 128


def test_the_compiler_counts_too(config):
    compiled = jax.jit(jnp.matmul).lower(shape(16, 24), shape(24, 40)).compile()
    assert compiled_flops(compiled) == 2 * 16 * 24 * 40
    assert compiled_bytes(compiled) == 4 * (16 * 24 + 24 * 40 + 16 * 40)
    # Additions and element by element work come on top; a fast algorithm may save products.
    nominal, _ = network_work(config, (8, 8, 1), 3)
    assert compiled_forward_work(config, (8, 8, 1), 3, batch_size=4) > nominal / 10
