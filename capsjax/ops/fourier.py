"""Convolution of a CPU in the Fourier domain: a third to an eighth of the products.

A convolution of stride `s` is a sum over `s x s` phases of convolutions of stride 1 (every s-th row
and column of image and kernel). Its outputs are cut into tiles. Each tile is a product of two
discrete Fourier transforms, on a grid just large enough that nothing that is kept wraps around: of
large tiles fewer products are thrown away, small ones take less to transform. The whole is
bilinear, with three constant real matrices: `B` and `C` transform image and kernel, both are
multiplied, summing over phases and channels, and `A` transforms back. So each step is a matrix
product, and the gradients are made of the same matrices, transposed.

A frequency that is its own conjugate has one row in `B` and `C`; two that are each other's have
three: real part, imaginary part and their sum. Three products of these make a complex one (Gauss).
Or they have two, real and imaginary part, and all four products of the rows are taken at once, in
one matrix product that is twice as high and twice as wide: more products of smaller spectra.

Names of sizes: N images, S x T tiles of each, P x Q outputs of a tile, C input features of all
phases, F output features, L x M points of the grid, I x J taps of a phase of the kernel, R groups
of G rows, one or two.
"""

import functools
import itertools
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
    """Heights and widths of an unpadded convolution that is made of phases and tiles."""

    strides: Pair
    tiles: Pair  # below one another and side by side
    outputs: Pair  # of a tile
    taps: Pair  # of the kernel's phases
    together: int  # rows that are multiplied with one another, `G`

    @property
    def grid(self) -> Pair:
        """The points that a tile sees of a phase of the image."""
        (p, q), (i, j) = self.outputs, self.taps
        return p + i - 1, q + j - 1


LARGEST_GRID = 512
"""Points of a grid from which on its matrices, 12 bytes times the square of that, are a burden."""

MOVED = 60
"""Multiplications that take as long as to write an element of an array and to read it again."""

WORTH = {"forward": 1.0, "input_gradient": 1.5, "kernel_gradient": 1.3}
"""Work that is worth one multiplication of the other forms. In a gradient that is more: they are
slower there, and two of the three functions share the spectra of what they have in common."""


def is_worthwhile(
    which: str,
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Pair,
    dtype: DTypeLike,
    *,
    gathers: bool,
) -> bool:
    """Whether a function of this module is faster than another form, which `gathers` windows."""
    if dtype == jnp.float16:  # a sum over the grid would leave its range
        return False
    images, (*window, channels, features) = known(x_shape[0]), kernel_shape
    geometry = geometry_of(x_shape, kernel_shape, strides)
    seen = images * math.prod(_outputs(x_shape, kernel_shape, strides)) * math.prod(window)
    other = seen * channels * (features + MOVED * gathers)
    work = _work(geometry, images, channels, features)
    return math.prod(geometry.grid) <= LARGEST_GRID and work < WORTH[which] * other


def geometry_of(x_shape: Sequence[int], kernel_shape: Sequence[int], strides: Pair) -> Geometry:
    """The tiles that take the least work, of images `[N, H, W, C]` and a kernel."""
    rows, columns, channels, features = kernel_shape
    outputs = _outputs(x_shape, kernel_shape, strides)
    return _best(outputs, (rows, columns), strides, known(x_shape[0]), channels, features)


def _outputs(x_shape: Sequence[int], kernel_shape: Sequence[int], strides: Pair) -> Pair:
    sides = zip(x_shape[1:3], kernel_shape, strides, strict=False)
    p, q = ((size - kernel) // stride + 1 for size, kernel, stride in sides)
    return p, q


@functools.lru_cache(maxsize=256)
def _best(
    outputs: Pair, kernel: Pair, strides: Pair, images: int, channels: int, features: int
) -> Geometry:
    i, j = (-(-size // stride) for size, stride in zip(kernel, strides, strict=True))
    # Of each number of tiles the smallest ones.
    heights, widths = ({-(-size // n) for n in range(1, size + 1)} for size in outputs)
    candidates = (
        Geometry(strides, (-(-outputs[0] // p), -(-outputs[1] // q)), (p, q), (i, j), together)
        for p, q, together in itertools.product(sorted(heights), sorted(widths), (1, 2))
    )
    return min(candidates, key=lambda geometry: _work(geometry, images, channels, features))


def _work(geometry: Geometry, images: int, channels: int, features: int) -> int:
    """The multiplications of a convolution, and what it moves counted as such."""
    phases, tiles, outputs, taps = map(math.prod, geometry[:-1])
    points = math.prod(geometry.grid)
    own = math.prod(2 - n % 2 for n in geometry.grid)  # frequencies that are their own conjugates
    rows = own + 3 * (points - own) // 2 if geometry.together == 1 else points
    products = rows * geometry.together
    image = images * tiles * phases * channels
    kernel = phases * channels * features
    result = images * tiles * features
    multiplied = rows * (image * points + kernel * taps)
    multiplied += products * (image * features + result * outputs)
    moved = image * (points + rows) + result * (outputs + products) + kernel * (taps + rows)
    return multiplied + MOVED * moved


def forward(x: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Images `[N, H, W, C]` and kernel `[height, width, C, F]` -> `[N, S * P, T * Q, F]`, cut."""
    geometry = geometry_of(x.shape, kernel.shape, strides)
    mean, centred = _centred(x)
    image, filters = _image_spectrum(centred, geometry), _kernel_spectrum(kernel, geometry)
    products = product("rnc,rfc->rnf", image, filters)
    y = _apply(matrices(geometry).result, _products_apart(products, geometry))
    (s, t), (p, q) = geometry.tiles, geometry.outputs
    y = y.reshape(p, q, x.shape[0], s, t, -1).transpose(2, 3, 0, 4, 1, 5)
    y = y.reshape(x.shape[0], s * p, t * q, -1)
    y = _resize(y, (1, 2), _outputs(x.shape, kernel.shape, strides))
    # As a product: XLA sums over leading axes slowly.
    *window, channels, features = kernel.shape
    taps = math.prod(window)
    sum_of_kernel = _apply(np.ones((1, taps)), kernel.reshape(taps, channels, features))[0]
    of_mean = jnp.einsum("nhwc,cf->nhwf", mean, sum_of_kernel)
    return (y + of_mean).astype(x.dtype)


def input_gradient(
    kernel: jax.Array, g: jax.Array, x_shape: tuple[int, ...], strides: Pair
) -> jax.Array:
    """Kernel and the gradient `g` of the result -> that of the images."""
    geometry = geometry_of(x_shape, kernel.shape, strides)
    filters = _kernel_spectrum(kernel, geometry)
    result = _apply(matrices(geometry).result.T, _tiles(g, geometry))
    spectrum = product("rnf,rfc->rnc", _products_together(result, geometry), filters)
    (s, t), (rows, columns), (down, right) = geometry.tiles, geometry.grid, strides
    x = _apply(matrices(geometry).image.T, _ungrouped(spectrum, geometry))
    x = x.reshape(rows, columns, g.shape[0], s, t, down, right, -1)
    x = x.transpose(2, 3, 0, 5, 4, 1, 6, 7)
    x = x.reshape(g.shape[0], s * rows * down, t * columns * right, -1)
    for axis in (1, 2):
        x = _together(x, axis, *_overlap(geometry, axis))
    return _resize(x, (1, 2), x_shape[1:3]).astype(g.dtype)  # what no window sees becomes zero


def kernel_gradient(
    x: jax.Array, kernel_shape: tuple[int, ...], g: jax.Array, strides: Pair
) -> jax.Array:
    """Images and the gradient `g` of the result -> that of the kernel."""
    geometry = geometry_of(x.shape, kernel_shape, strides)
    mean, centred = _centred(x)
    image = _image_spectrum(centred, geometry)
    # A product that sums over the first axis of both factors is slow: the smaller one is turned.
    result = _apply(matrices(geometry).result.T, jnp.swapaxes(_tiles(g, geometry), 1, 2))
    result = _products_together(result, geometry, turned=True)
    spectrum = product("rfn,rnc->rfc", result, image)
    phases = _apply(matrices(geometry).kernel.T, _ungrouped(spectrum, geometry))
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
    """`B x`: `[N, H, W, C]` -> `[R, G * N * S * T, phases * C]`."""
    (s, t), (rows, columns), (down, right) = geometry.tiles, geometry.grid, geometry.strides
    for axis in (1, 2):
        x = _apart(x, axis, *_overlap(geometry, axis))
    x = x.reshape(x.shape[0], s, rows, down, t, columns, right, -1)
    x = x.transpose(2, 5, 0, 1, 4, 3, 6, 7)
    x = x.reshape(rows * columns, x.shape[2] * s * t, -1)
    return _grouped(_apply(matrices(geometry).image, x), geometry)


def _kernel_spectrum(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`C k`: `[height, width, C, F]` -> `[R, G * F, phases * C]`."""
    (rows, columns), (down, right) = geometry.taps, geometry.strides
    features = kernel.shape[-1]
    k = _resize(kernel, (0, 1), (rows * down, columns * right))
    # The kernel is turned, and not its spectrum, which is larger.
    k = k.reshape(rows, down, columns, right, -1, features).transpose(0, 2, 5, 1, 3, 4)
    k = k.reshape(rows * columns, features, -1)
    return _grouped(_apply(matrices(geometry).kernel, k), geometry)


def _grouped(x: jax.Array, geometry: Geometry) -> jax.Array:
    """`[R * G, n, C]` -> `[R, G * n, C]`."""
    return x.reshape(len(x) // geometry.together, geometry.together * x.shape[1], -1)


def _ungrouped(x: jax.Array, geometry: Geometry) -> jax.Array:
    """`[R, G * n, C]` -> `[R * G, n, C]`."""
    return x.reshape(len(x) * geometry.together, x.shape[1] // geometry.together, -1)


def _products_apart(x: jax.Array, geometry: Geometry) -> jax.Array:
    """`[R, G * n, G * F]` -> `[R * G * G, n, F]`, by row of the image, then of the kernel."""
    r, n, f = x.shape
    g = geometry.together
    x = x.reshape(r, g, n // g, g, f // g).transpose(0, 1, 3, 2, 4)
    return x.reshape(r * g * g, n // g, f // g)


def _products_together(x: jax.Array, geometry: Geometry, *, turned: bool = False) -> jax.Array:
    """The opposite; or of `[R * G * G, F, n]` -> `[R, G * F, G * n]`."""
    r, *sizes = x.shape
    g = geometry.together
    x = x.reshape(r // g**2, g, g, *sizes).transpose(0, *((2, 3, 1) if turned else (1, 3, 2)), 4)
    return x.reshape(r // g**2, g * sizes[0], g * sizes[1])


def _tiles(g: jax.Array, geometry: Geometry) -> jax.Array:
    """A gradient of the result -> `[P * Q, N * S * T, F]`."""
    (s, t), (p, q) = geometry.tiles, geometry.outputs
    g = _resize(g, (1, 2), (s * p, t * q))
    g = g.reshape(g.shape[0], s, p, t, q, -1).transpose(2, 4, 0, 1, 3, 5)
    return g.reshape(p * q, g.shape[2] * s * t, -1)


def _overlap(geometry: Geometry, axis: int) -> tuple[int, int, int]:
    """Along an axis of the image: the number of tiles, and how far they lie apart and reach."""
    of_axis = (sizes[axis - 1] for sizes in (*geometry[:3], geometry.grid))
    stride, tiles, outputs, points = of_axis
    return tiles, stride * outputs, stride * points


def _apart(x: jax.Array, axis: int, tiles: int, distance: int, reach: int) -> jax.Array:
    """An axis -> what each of the tiles sees of it, one after the other."""
    x = _resize(x, (axis,), ((tiles - 1) * distance + reach,))
    if tiles == 1:
        return x
    places = distance * np.arange(tiles, dtype=np.int32)[:, None] + np.arange(reach, dtype=np.int32)
    before = (slice(None),) * axis
    return x.at[(*before, places.reshape(-1))].get(mode="promise_in_bounds")


def _together(x: jax.Array, axis: int, tiles: int, distance: int, reach: int) -> jax.Array:
    """The transpose of `_apart`: adds up what tiles have in common."""
    if tiles == 1:
        return x
    size = (tiles - 1) * distance + reach
    x = x.reshape(*x.shape[:axis], tiles, reach, *x.shape[axis + 1 :])
    total = jnp.zeros((), x.dtype)
    for first in range(0, reach, distance):
        # So much of each tile lies beside the same of the next one.
        part = pad(x, {axis + 1: (-first, first + distance - reach, 0)})
        part = part.reshape(*x.shape[:axis], tiles * distance, *x.shape[axis + 2 :])
        total = total + pad(part, {axis: (first, size - first - tiles * distance, 0)})
    return total


def _resize(x: jax.Array, axes: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    """Adds zeros to, or cuts off, the ends of some axes."""
    return pad(x, {a: (0, size - x.shape[a], 0) for a, size in zip(axes, sizes, strict=True)})


def _apply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """`matrix [r, p]` times `x [p, ...]`, in float32 at least."""
    dtype = accumulation_dtype(x.dtype)
    flat = x.astype(dtype).reshape(len(x), -1)
    return (jnp.asarray(matrix, dtype) @ flat).reshape(len(matrix), *x.shape[1:])


class Matrices(NamedTuple):
    """The matrices `A [P * Q, R * G * G]`, `B [R * G, L * M]` and `C [R * G, I * J]`, float64."""

    result: np.ndarray
    image: np.ndarray
    kernel: np.ndarray


def matrices(geometry: Geometry) -> Matrices:
    """The three matrices, of a tile.

    With `x` and `k` the transforms of image and kernel at a frequency, `k` with the other sign
    since a convolutional layer correlates, the result is the sum of the real parts of `w x k`. Of
    two frequencies that are each other's conjugates one is enough.
    """
    return _matrices(geometry.outputs, geometry.taps, geometry.grid, geometry.together)


@functools.lru_cache(maxsize=32)
def _matrices(outputs: Pair, taps: Pair, grid: Pair, together: int) -> Matrices:
    of_image, of_kernel, to_result = [], [], []
    real: list[tuple[np.ndarray, ...]] = []
    for frequency in np.ndindex(*grid):
        conjugate = tuple(-f % n for f, n in zip(frequency, grid, strict=True))
        if conjugate < frequency:
            continue
        x = _waves(frequency, grid, grid).conj()
        k = _waves(frequency, grid, taps)
        w = _waves(frequency, grid, outputs) / math.prod(grid)
        if conjugate == frequency:
            real.append((x.real, k.real, w.real))
            continue
        w = 2 * w
        of_image += [x.real, x.imag]
        of_kernel += [k.real, k.imag]
        if together == 2:
            to_result += [w.real, -w.imag, -w.imag, -w.real]
        else:
            of_image.append(x.real + x.imag)
            of_kernel.append(k.real + k.imag)
            to_result += [w.real + w.imag, w.imag - w.real, -w.imag]
    if len(real) % together:  # nothing goes with the last one
        real.append(tuple(np.zeros_like(waves) for waves in real[0]))
    for place, (x, k, w) in enumerate(real):
        of_image.append(x)
        of_kernel.append(k)
        products = [np.zeros_like(w)] * together
        products[place % together] = w
        to_result += products
    return Matrices(np.stack(to_result, axis=1), np.stack(of_image), np.stack(of_kernel))


def _waves(frequency: tuple[int, ...], grid: Pair, size: Pair) -> np.ndarray:
    """`exp(2 pi i frequency . position / grid)` at all positions of a window, flat."""
    turns = sum(
        f * position / n for f, position, n in zip(frequency, np.indices(size), grid, strict=True)
    )
    return np.exp(2j * np.pi * turns).reshape(-1)
