"""Convolution for the platform at hand: XLA's own on GPU and TPU, matrix products on a CPU.

XLA's convolution on a CPU is up to 25 times slower than the hardware allows on the strided 9x9
convolutions of a capsule network, most of all its input gradient. The CPU path here is made of
matrix products, which run at the full rate of the machine: those of `windows`, or where it saves
work those of `fourier`.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.capsules import accumulation_dtype
from capsjax.ops import fourier, windows

T = TypeVar("T")
HIGHEST = ("highest", "float32", lax.Precision.HIGHEST)

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

    The fast path serves 2-D, undilated, ungrouped convolutions of floats in NHWC/HWIO layout. So is
    a depthwise convolution whose kernel covers the unpadded image, on every platform: it is no more
    than products and a sum, the gradient of which XLA's convolution takes 200 times as long for.
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
    is_plain = (
        lhs.ndim == 4
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and numbers == channels_last
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(v is None for k, v in options.items() if k not in wanted_only_on_accelerators)
    )
    if is_plain:
        strides = _pair(window_strides)
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
        pads = _pair((int(low), int(high)) for low, high in padding)
        has_windows = _has_windows(lhs.shape[1:3], rhs.shape[:2], pads)
        if feature_group_count == 1 and has_windows:
            return _conv(lhs, rhs, strides, pads, tuple(options.items()))
        is_depthwise = feature_group_count == lhs.shape[3] == rhs.shape[3]
        if is_depthwise and lhs.shape[1:3] == rhs.shape[:2] and pads == ((0, 0), (0, 0)):
            return _depthwise_once(lhs, rhs, options.get("precision"))
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


def _depthwise_once(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """Each channel `[N, H, W, C]` with its own kernel `[H, W, 1, C]`, in the one place it fits."""
    wide = accumulation_dtype(x.dtype)
    sums = jnp.einsum(
        "nhwc,hwc->nc", x, kernel[:, :, 0], precision=precision, preferred_element_type=wide
    )
    return sums[:, None, None].astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(
    x: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding, options: tuple
) -> jax.Array:
    def cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = _pad(x, padding)
        return _method(x, kernel.shape, strides, options).forward(x, kernel, strides)

    return lax.platform_dependent(
        x,
        kernel,
        cpu=cpu,
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
        x = _pad(x, padding)
        method = _method(x, kernel.shape, strides, options)
        dx = method.input_gradient(kernel, g, x.shape, strides)
        cropped = _pad(dx, tuple((-low, -high) for low, high in padding))
        return cropped, method.kernel_gradient(x, kernel.shape, g, strides)

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


def _method(
    x: jax.Array, kernel_shape: tuple[int, ...], strides: Strides, options: tuple
) -> ModuleType:
    """What a CPU does with padded images: the form that has less work.

    Rounding in the Fourier domain is small beside the brightest part of an image, everywhere in it,
    not beside what an output sees. So where the highest precision is asked for, windows are taken.
    """
    geometry = fourier.Geometry.of(x.shape, kernel_shape, strides)
    is_exact = _is_highest(dict(options).get("precision"))
    return fourier if not is_exact and fourier.is_worthwhile(geometry, x.dtype) else windows


def _is_highest(precision: Any) -> bool:
    """Whether a precision, or JAX's default where there is none, is the highest."""
    if precision is None:
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    of_both = precision if isinstance(precision, tuple) else (precision,)
    return any(p in HIGHEST for p in of_both)


def _pad(x: jax.Array, padding: Iterable[tuple[int, int]]) -> jax.Array:
    """Pads (or, by negative amounts, crops) the spatial axes with zeros."""
    spatial = [(low, high, 0) for low, high in padding]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])
