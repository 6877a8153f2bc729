"""What every form of a CPU's convolution is held against: `jax.lax`, in value and gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.tolerance import assert_close


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _ours_and_theirs(form, x, kernel, g, strides):
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=numbers)

    value, pullback = jax.vjp(convolve, x, kernel)
    ours = (
        form.forward(x, kernel, strides),
        form.input_gradient(kernel, g, x.shape, strides),
        form.kernel_gradient(x, kernel.shape, g, strides),
    )
    return ours, (value, *pullback(g))


def assert_agrees_with_xla(form, x, kernel, strides):
    """Holds the module's three functions against XLA's convolution and its gradients."""
    windows = [
        (size - taps) // stride + 1
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    ]
    g = draw(len(x), *windows, kernel.shape[-1], seed=2, dtype=x.dtype)
    lengths = (
        math.prod(kernel.shape[:3]),  # a value: a window of inputs
        math.prod(kernel.shape[:2]) * kernel.shape[3],  # an input's gradient: what saw it
        len(x) * math.prod(windows),  # a weight's: all positions
    )
    results = _ours_and_theirs(form, x, kernel, g, strides)
    for actual, expected, length in zip(*results, lengths, strict=True):
        assert actual.dtype == expected.dtype
        assert_close(actual, expected, reduction_length=length)
