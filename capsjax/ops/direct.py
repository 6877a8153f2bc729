"""Convolution of a CPU as products of windows and kernel, some taps of the kernel at a time.

Windows are gathered through as many taps as make a good product: all patches at once may be a
hundred times as large as the images, and a long sum rounds more than a sum of short ones.

Names of sizes: N images, P x Q outputs, C input features, F output features.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.capsules import accumulation_dtype
from capsjax.ops._arrays import known, product, spread
from capsjax.ops.patches import positions

TERMS = 256
"""Terms of a sum that make a good matrix product; longer ones only round more."""

FEW_OUTPUTS = 160
"""Outputs of all images for which a kernel is not worth being cut up: that takes longer than the
product."""

FEW_FEATURES, FEW_POSITIONS = 8, 64
"""Input features, and outputs of an image, below which a product of each tap, or of each image, is
too little."""


def forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Images `[N, H, W, C]` and kernel `[height, width, C, F]` -> `[N, P, Q, F]`."""
    sides = (positions(x.shape[1 + i], kernel.shape[i], strides[i]) for i in (0, 1))
    outputs = known(x.shape[0]) * math.prod(map(len, sides))
    groups = _tap_groups(kernel.shape, outputs)
    matrices = kernel.reshape(len(groups), -1, kernel.shape[-1])

    def add(out: jax.Array, group: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        taps, matrix = group
        windows = _windows(x, kernel.shape, strides, taps)
        return out + product("npqk,kf->npqf", windows, matrix), None

    first = add(jnp.zeros((), accumulation_dtype(x.dtype)), (groups[0], matrices[0]))[0]
    out, _ = lax.scan(add, first, (groups[1:], matrices[1:]))
    return out.astype(x.dtype)


def kernel_gradient(
    x: jax.Array, kernel_shape: tuple[int, ...], g: jax.Array, strides: tuple[int, int]
) -> jax.Array:
    """Images and the gradient `g [N, P, Q, F]` of the result -> that of the kernel."""
    if is_by_example(kernel_shape, g.shape[1] * g.shape[2]):
        return lax.map(
            lambda tap: _by_example(x, kernel_shape[1], g, strides, tap),
            jnp.arange(kernel_shape[0] * kernel_shape[1], dtype=jnp.int32),
        ).reshape(kernel_shape)

    def of_group(taps: jax.Array) -> jax.Array:
        return product("npqk,npqf->kf", _windows(x, kernel_shape, strides, taps), g)

    return lax.map(of_group, _tap_groups(kernel_shape)).reshape(kernel_shape).astype(x.dtype)


def is_by_example(kernel_shape: Sequence[int], positions: int) -> bool:
    """Whether the kernel's gradient is summed up example by example, a tap at a time.

    So the products go to all cores, and nothing is gathered: it is the faster where an example has
    a matrix `[C, F]` of a good shape and size.
    """
    rows, columns, features, _ = kernel_shape
    return rows * columns > 1 and FEW_FEATURES <= features <= positions >= FEW_POSITIONS


def _by_example(
    x: jax.Array, columns: int, g: jax.Array, strides: tuple[int, int], tap: jax.Array
) -> jax.Array:
    """The gradient `[C, F]` of an element of the kernel."""
    first = (jnp.zeros_like(tap), tap // columns, tap % columns, jnp.zeros_like(tap))
    sides = ((n - 1) * stride + 1 for n, stride in zip(g.shape[1:3], strides, strict=True))
    seen = lax.dynamic_slice(x, first, (x.shape[0], *sides, x.shape[3]))
    seen = seen[:, :: strides[0], :: strides[1]]
    return jnp.sum(product("npqc,npqf->ncf", seen, g), axis=0).astype(x.dtype)


def input_gradient(
    kernel: jax.Array, g: jax.Array, x_shape: tuple[int, ...], strides: tuple[int, int]
) -> jax.Array:
    """Kernel and the gradient `g [N, P, Q, F]` of the result -> that of the images."""
    rows, width, channels, _ = kernel.shape
    n, height, size, _ = x_shape
    windows = jnp.zeros((), accumulation_dtype(g.dtype))
    for row in range(rows):
        of_row = product("npqf,kf->npqk", g, lax.collapse(kernel[row], 0, 2))
        windows = windows + spread(of_row, {1: (row, height, strides[0])})
    windows = windows.reshape(n, height, g.shape[2], width, channels)
    columns = [spread(windows[:, :, :, k], {2: (k, size, strides[1])}) for k in range(width)]
    return sum(columns[1:], columns[0]).astype(kernel.dtype)


def _tap_groups(kernel_shape: tuple[int, ...], outputs: int | None = None) -> jax.Array:
    """`[groups, taps]`: the elements of the kernel, row by row, that are multiplied at once.

    All are where there are few outputs of all images.
    """
    height, width, channels, _ = kernel_shape
    taps = height * width
    is_whole = outputs is not None and outputs <= FEW_OUTPUTS
    most = taps if is_whole else max(1, TERMS // max(1, channels))
    at_once = max(t for t in range(1, taps + 1) if taps % t == 0 and t <= most)
    return jnp.arange(taps, dtype=jnp.int32).reshape(-1, at_once)


def _windows(
    x: jax.Array, kernel_shape: tuple[int, ...], strides: tuple[int, int], taps: jax.Array
) -> jax.Array:
    """`[N, H, W, C]` -> `[N, P, Q, taps * C]`: what each output sees through these taps."""
    height, width = kernel_shape[:2]
    down = jnp.asarray(positions(x.shape[1], height, strides[0]))[:, taps // width]
    right = jnp.asarray(positions(x.shape[2], width, strides[1]))[:, taps % width]
    windows = x.at[:, down[:, None], right[None]].get(mode="promise_in_bounds")
    return windows.reshape(x.shape[0], len(down), len(right), taps.size * x.shape[3])
