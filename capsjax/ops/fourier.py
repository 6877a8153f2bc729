"""Convolution of a CPU in the Fourier domain: a quarter of the products for 9x9 taps of stride 2.

A convolution of stride `s` is a sum over `s x s` phases of convolutions of stride 1 (every s-th row
and column of image and kernel). Each of those is a product of two discrete Fourier transforms on a
grid just large enough that nothing that is kept wraps around. The whole is bilinear, with
three constant real matrices: `B` and `C` transform image and kernel, both are multiplied, summing
over phases and channels, and `A` transforms back. So each step is a matrix product, and the
gradients are made of the same matrices, transposed.

The rows of a spectrum come in pairs: real and imaginary part of a frequency, or two frequencies
that are real. Of a pair of the image and one of the kernel all four products are taken at once, in
one matrix product that is twice as high and twice as wide, and `A` picks what it needs of them.

Names of sizes: N images, P x Q outputs, C input features of all phases, F output features, L x M
points of the grid, I x J taps of a phase of the kernel, R pairs of rows.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from capsjax.capsules import accumulation_dtype
from capsjax.ops._arrays import known, pad, product

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Heights and widths of an unpadded convolution that is made of phases."""

    strides: Pair
    outputs: Pair
    taps: Pair  # of the kernel's phases
    grid: Pair  # the phases of an image, as far as they are seen

    @classmethod
    def of(cls, x_shape: Sequence[int], kernel_shape: Sequence[int], strides: Pair) -> "Geometry":
        """The geometry of images `[N, H, W, C]` and a kernel `[height, width, C, F]`."""
        sides = list(zip(x_shape[1:3], kernel_shape, strides, strict=False))
        p, q = ((size - kernel) // stride + 1 for size, kernel, stride in sides)
        i, j = (-(-kernel // stride) for _, kernel, stride in sides)
        return cls(strides, (p, q), (i, j), (p + i - 1, q + j - 1))


LARGEST_GRID = 512
"""Points of a grid from which on its matrices, 8 bytes times the square of that, are a burden."""

SAVING = 0.7
"""Share of the direct form's multiplications below which the transforms pay for themselves."""


def is_worthwhile(
    x_shape: Sequence[int], kernel_shape: Sequence[int], strides: Pair, dtype: DTypeLike
) -> bool:
    """Whether a convolution is faster in the Fourier domain than as products of windows."""
    if dtype == jnp.float16:  # a sum over the grid would leave its range
        return False
    phases, outputs, taps, points = map(math.prod, Geometry.of(x_shape, kernel_shape, strides))
    images, (*window, channels, features) = known(x_shape[0]), kernel_shape
    inputs = phases * channels
    image = images * inputs * points
    products = 2 * images * inputs * features
    result = 2 * images * features * outputs
    kernel = inputs * features * taps
    direct = images * outputs * math.prod(window) * channels * features
    fourier = points * (image + products + result + kernel)
    return points <= LARGEST_GRID and fourier < SAVING * direct


def forward(x: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Images `[N, H, W, C]` and kernel `[height, width, C, F]` -> `[N, P, Q, F]`."""
    geometry = Geometry.of(x.shape, kernel.shape, strides)
    *window, channels, features = kernel.shape
    mean, centred = _centred(x)
    image, filters = _image_spectrum(centred, geometry), _kernel_spectrum(kernel, geometry)
    products = _multiply("rnc,rfc->rnf", image, filters, x.dtype)
    products = products.reshape(-1, 2, x.shape[0], 2, features).transpose(0, 1, 3, 2, 4)
    y = _apply(matrices(geometry).result, products.reshape(-1, *products.shape[3:]))
    y = y.reshape(*geometry.outputs, *y.shape[1:]).transpose(2, 0, 1, 3)
    # As a product: XLA sums over leading axes slowly.
    taps = math.prod(window)
    sum_of_kernel = _apply(np.ones((1, taps)), kernel.reshape(taps, channels, features))[0]
    of_mean = jnp.einsum("nhwc,cf->nhwf", mean, sum_of_kernel)
    return (y + of_mean).astype(x.dtype)


def input_gradient(
    kernel: jax.Array, g: jax.Array, x_shape: tuple[int, ...], strides: Pair
) -> jax.Array:
    """Kernel and the gradient `g [N, P, Q, F]` of the result -> that of the images."""
    geometry = Geometry.of(x_shape, kernel.shape, strides)
    filters = _kernel_spectrum(kernel, geometry)
    result = _product_gradients(g, geometry).transpose(0, 1, 3, 2, 4)
    result = result.reshape(len(result), 2 * g.shape[0], 2 * g.shape[-1])
    spectrum = _multiply("rnf,rfc->rnc", result, filters, g.dtype)
    phases = _apply_transposed(matrices(geometry).image, spectrum, g.shape[0])
    (rows, columns), (down, right) = geometry.grid, strides
    x = phases.reshape(rows, columns, g.shape[0], down, right, -1).transpose(2, 0, 3, 1, 4, 5)
    x = x.reshape(g.shape[0], rows * down, columns * right, -1)
    return _resize(x, (1, 2), x_shape[1:3]).astype(g.dtype)  # what no window sees becomes zero


def kernel_gradient(
    x: jax.Array, kernel_shape: tuple[int, ...], g: jax.Array, strides: Pair
) -> jax.Array:
    """Images and the gradient `g [N, P, Q, F]` of the result -> that of the kernel."""
    geometry = Geometry.of(x.shape, kernel_shape, strides)
    mean, centred = _centred(x)
    image = _image_spectrum(centred, geometry)
    # A product that sums over the first axis of both factors is slow: the small one is turned.
    result = _product_gradients(g, geometry).transpose(0, 2, 4, 1, 3)
    result = result.reshape(len(result), -1, 2 * g.shape[0])
    spectrum = _multiply("rfn,rnc->rfc", result, image, g.dtype)
    phases = _apply_transposed(matrices(geometry).kernel, spectrum, kernel_shape[-1])
    (rows, columns), (down, right) = geometry.taps, strides
    k = phases.transpose(0, 2, 1).reshape(rows, columns, down, right, *kernel_shape[2:])
    k = k.transpose(0, 2, 1, 3, 4, 5).reshape(rows * down, columns * right, *kernel_shape[2:])
    sum_of_g = jnp.sum(g, axis=(1, 2), keepdims=True, dtype=mean.dtype)
    of_mean = jnp.einsum("nhwc,nhwf->hwcf", mean, sum_of_g)
    return (_resize(k, (0, 1), kernel_shape[:2]) + of_mean).astype(g.dtype)


def _centred(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean `[N, 1, 1, C]` of each image and feature, and what is left of `x` without it.

    The mean is put back at the end. Features behind a rectifier are mostly mean: frequency zero
    would be so much larger than the others that its rounding, which every output sees, would be
    most of the error.
    """
    x = x.astype(accumulation_dtype(x.dtype))
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    return mean, x - mean


def _image_spectrum(x: jax.Array, geometry: Geometry) -> jax.Array:
    """`B x`: `[N, H, W, C]` -> `[R, 2 * N, phases * C]`."""
    (rows, columns), (down, right) = geometry.grid, geometry.strides
    x = _resize(x, (1, 2), (rows * down, columns * right))
    x = x.reshape(x.shape[0], rows, down, columns, right, -1).transpose(1, 3, 0, 2, 4, 5)
    spectrum = _apply(matrices(geometry).image, x.reshape(rows * columns, x.shape[2], -1))
    return spectrum.reshape(len(spectrum) // 2, -1, spectrum.shape[-1])


def _kernel_spectrum(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`C k`: `[height, width, C, F]` -> `[R, 2 * F, phases * C]`."""
    (rows, columns), (down, right) = geometry.taps, geometry.strides
    features = kernel.shape[-1]
    k = _resize(kernel, (0, 1), (rows * down, columns * right))
    # The kernel is turned, and not its spectrum, which is larger.
    k = k.reshape(rows, down, columns, right, -1, features).transpose(0, 2, 5, 1, 3, 4)
    spectrum = _apply(matrices(geometry).kernel, k.reshape(rows * columns, features, -1))
    return spectrum.reshape(len(spectrum) // 2, 2 * features, -1)


def _product_gradients(g: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `A`: `[N, P, Q, F]` -> `[R, 2, 2, N, F]`, by row of image and of kernel."""
    points = g.transpose(1, 2, 0, 3).reshape(-1, g.shape[0], g.shape[-1])
    products = _apply(matrices(geometry).result.T, points)
    return products.reshape(-1, 2, 2, *products.shape[1:])


def _resize(x: jax.Array, axes: Pair, sizes: Sequence[int]) -> jax.Array:
    """Adds zeros to, or cuts off, the ends of two axes."""
    return pad(x, {a: (0, size - x.shape[a], 0) for a, size in zip(axes, sizes, strict=True)})


def _apply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """`matrix [r, p]` times `x [p, ...]`, in float32 at least."""
    dtype = accumulation_dtype(x.dtype)
    flat = x.astype(dtype).reshape(len(x), -1)
    return (jnp.asarray(matrix, dtype) @ flat).reshape(len(matrix), *x.shape[1:])


def _apply_transposed(matrix: np.ndarray, spectrum: jax.Array, count: int) -> jax.Array:
    """A spectrum `[R, 2 * count, C]` back to `[p, count, C]`."""
    return _apply(matrix.T, spectrum.reshape(len(matrix), count, -1))


def _multiply(subscripts: str, a: jax.Array, b: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Products of numbers of a dtype, summed up in float32 at least."""
    return product(subscripts, a.astype(dtype), b.astype(dtype))


class Matrices(NamedTuple):
    """The matrices `A [P * Q, R * 2 * 2]`, `B [R * 2, L * M]` and `C [R * 2, I * J]`, float64."""

    result: np.ndarray
    image: np.ndarray
    kernel: np.ndarray


@functools.lru_cache(maxsize=32)
def matrices(geometry: Geometry) -> Matrices:
    """The three matrices.

    The four products of a pair follow one another by row of the image, then of the kernel. Of two
    conjugate frequencies one is enough. With `x` and `k` the transforms of image and kernel at one
    of them, `k` with the other sign since a convolutional layer correlates, the result is the sum
    of the real parts of `w x k`.
    """
    _, outputs, taps, grid = geometry
    points = math.prod(grid)
    of_image, of_kernel, to_result = [], [], []
    real: list[tuple[np.ndarray, ...]] = []
    for frequency in np.ndindex(*grid):
        conjugate = tuple(-f % n for f, n in zip(frequency, grid, strict=True))
        if conjugate < frequency:
            continue
        x = _waves(frequency, grid, grid).conj()
        k = _waves(frequency, grid, taps)
        w = _waves(frequency, grid, outputs) / points
        if conjugate == frequency:
            real.append((x.real, k.real, w.real))
        else:
            of_image += [x.real, x.imag]
            of_kernel += [k.real, k.imag]
            to_result += [2 * w.real, -2 * w.imag, -2 * w.imag, -2 * w.real]
    if len(real) % 2:  # nothing goes with the last one
        real.append(tuple(np.zeros_like(waves) for waves in real[0]))
    for (x1, k1, w1), (x2, k2, w2) in zip(real[::2], real[1::2], strict=True):
        of_image += [x1, x2]
        of_kernel += [k1, k2]
        to_result += [w1, np.zeros_like(w1), np.zeros_like(w1), w2]
    return Matrices(np.stack(to_result, axis=1), np.stack(of_image), np.stack(of_kernel))


def _waves(frequency: tuple[int, ...], grid: Pair, size: Pair) -> np.ndarray:
    """`exp(2 pi i frequency . position / grid)` at all positions of a window, flat."""
    turns = sum(
        f * position / n for f, position, n in zip(frequency, np.indices(size), grid, strict=True)
    )
    return np.exp(2j * np.pi * turns).reshape(-1)
