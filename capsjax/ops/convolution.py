"""Convolution for the platform at hand: XLA's own on GPU and TPU, matrix products on a CPU.

XLA's convolution on a CPU is up to 25 times slower than the hardware allows on the strided 9x9
convolutions of a capsule network, most of all its input gradient. The CPU path here gathers the
windows of one kernel row at a time and multiplies them with that row of the kernel: the matrix
products run at the full rate of the machine, and no more than a row of patches is alive at once.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.capsules import accumulation_dtype

T = TypeVar("T")
Strides = tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, except that a CPU gets a fast path of its own.

    The fast path serves 2-D, undilated, ungrouped convolutions of floats in NHWC/HWIO layout.
    Anything else goes to `jax.lax.conv_general_dilated` on every platform. The choice is made when
    the program is lowered, so one traced program can be compiled for several platforms. Meant for
    the `conv_general_dilated=` argument of `flax.nnx.Conv`. Where the fast path is open, the result
    is differentiable in reverse mode only.

    Args:
        lhs: images `[batch, height, width, in_features]`.
        rhs: kernel `[kernel_height, kernel_width, in_features, out_features]`.
        window_strides: stride of each spatial axis.
        padding: `"SAME"`, `"VALID"` or a pair (low, high) for each spatial axis.
        lhs_dilation: as in `jax.lax`.
        rhs_dilation: as in `jax.lax`.
        dimension_numbers: as in `jax.lax`.
        feature_group_count: as in `jax.lax`.
        **options: further keywords of `jax.lax.conv_general_dilated` (precision, ...).

    Returns:
        `[batch, out_height, out_width, out_features]` in the dtype of the inputs.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    channels_last = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _channels_last(lhs.ndim))
    wanted_only_on_accelerators = ("precision", "out_sharding")
    has_fast_path = (
        lhs.ndim == 4
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and numbers == channels_last
        and feature_group_count == 1
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(v is None for k, v in options.items() if k not in wanted_only_on_accelerators)
    )
    if has_fast_path:
        strides = _pair(window_strides)
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
        pads = _pair((int(low), int(high)) for low, high in padding)
        if _has_windows(lhs.shape[1:3], rhs.shape[:2], pads):
            return _conv(lhs, rhs, strides, pads, tuple(options.items()))
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        **options,
    )


def _pair(values: Iterable[T]) -> tuple[T, T]:
    first, second = values
    return first, second


def _has_windows(sizes: Sequence[int], kernel: Sequence[int], padding: Padding) -> bool:
    """Whether the kernel fits on the padded image at least once."""
    padded = (size + low + high for size, (low, high) in zip(sizes, padding, strict=True))
    return all(size >= width for size, width in zip(padded, kernel, strict=True))


def _channels_last(ndim: int) -> tuple[str, str, str] | None:
    return ("NHWC", "HWIO", "NHWC") if ndim == 4 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(
    x: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding, options: tuple
) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _row_products(_pad(x, padding), kernel, strides),
        default=_xla_conv(strides, padding, options),
    )


def _conv_forward(
    x: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding, options: tuple
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, strides, padding, options), (x, kernel)


def _conv_backward(
    strides: Strides,
    padding: Padding,
    options: tuple,
    residuals: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def xla(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(_xla_conv(strides, padding, options), x, kernel)[1](g)

    def cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        padded = _pad(x, padding)
        dx = _input_gradient(kernel, g, padded.shape, strides)
        return _pad(dx, tuple((-low, -high) for low, high in padding)), _kernel_gradient(
            padded, kernel.shape, g, strides
        )

    return lax.platform_dependent(*residuals, g, cpu=cpu, default=xla)


_conv.defvjp(_conv_forward, _conv_backward)


def _xla_conv(strides: Strides, padding: Padding, options: tuple) -> Callable[..., jax.Array]:
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=_channels_last(4),
        **dict(options),
    )


# The CPU path. Names of sizes: N images, H x W padded inputs, P x Q outputs, K kernel columns,
# C input features, F output features.


def _pad(x: jax.Array, padding: Iterable[tuple[int, int]]) -> jax.Array:
    """Pads (or, by negative amounts, crops) the spatial axes with zeros."""
    spatial = [(low, high, 0) for low, high in padding]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])


def _output_size(size: int, kernel: int, stride: int) -> int:
    return max(0, (size - kernel) // stride + 1)


def _every(x: jax.Array, start: int, count: int, stride: int, axis: int) -> jax.Array:
    """`count` elements of `axis`, `stride` apart."""
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _spread(x: jax.Array, start: int, size: int, stride: int, axis: int) -> jax.Array:
    """The transpose of `_every`: puts the elements back into zeros of length `size`."""
    used = start + (x.shape[axis] - 1) * stride + 1
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (start, size - used, stride - 1)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _column_windows(x: jax.Array, width: int, stride: int) -> jax.Array:
    """`[N, H, W, C]` -> `[N, H, Q, K * C]`: the K neighbours that an output column looks at."""
    n, height, size, _ = x.shape
    count = _output_size(size, width, stride)
    windows = jnp.stack([_every(x, k, count, stride, axis=2) for k in range(width)], axis=3)
    return windows.reshape(n, height, count, -1)


def _row_products(x: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    rows, width, _, features = kernel.shape
    count = _output_size(x.shape[1], rows, strides[0])
    windows = _column_windows(x, width, strides[1])
    out = sum(
        _matmul(
            _every(windows, k, count, strides[0], axis=1),
            kernel[k].reshape(-1, features),
            "npqc,cf->npqf",
        )
        for k in range(rows)
    )
    return jnp.asarray(out).astype(x.dtype)


def _kernel_gradient(
    x: jax.Array, kernel_shape: tuple[int, ...], g: jax.Array, strides: Strides
) -> jax.Array:
    rows, width, _, _ = kernel_shape
    windows = _column_windows(x, width, strides[1])
    gradient = [
        _matmul(_every(windows, k, g.shape[1], strides[0], axis=1), g, "npqc,npqf->cf")
        for k in range(rows)
    ]
    return jnp.stack(gradient).reshape(kernel_shape).astype(x.dtype)


def _input_gradient(
    kernel: jax.Array, g: jax.Array, input_shape: tuple[int, ...], strides: Strides
) -> jax.Array:
    rows, width, channels, features = kernel.shape
    n, height, size, _ = input_shape
    windows = sum(
        _spread(
            _matmul(g, kernel[k].reshape(-1, features), "npqf,cf->npqc"),
            k,
            height,
            strides[0],
            axis=1,
        )
        for k in range(rows)
    )
    windows = jnp.asarray(windows).reshape(n, height, g.shape[2], width, channels)
    columns = [_spread(windows[:, :, :, k], k, size, strides[1], axis=2) for k in range(width)]
    return sum(columns[1:], columns[0]).astype(kernel.dtype)


def _matmul(a: jax.Array, b: jax.Array, subscripts: str) -> jax.Array:
    """A matrix product that is summed up in float32 at least."""
    return jnp.einsum(subscripts, a, b, preferred_element_type=accumulation_dtype(a.dtype))
