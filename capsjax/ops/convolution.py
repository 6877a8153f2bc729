"""Convolution for the platform at hand: XLA's own on GPU and TPU, matrix products on a CPU.

XLA's convolution on a CPU is up to 25 times slower than the hardware allows on the strided 9x9
convolutions of a capsule network, most of all its input gradient. The CPU path here is made of
matrix products, which run at the full rate of the machine: those of `direct`, or where it saves
work those of `fourier`.
"""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.ops import direct, fourier
from capsjax.ops._arrays import pad, product
from capsjax.ops._meshes import sharded_by_compiler, varying_alike

HIGHEST = ("highest", "float32", lax.Precision.HIGHEST)
CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")

Pair = tuple[int, int]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
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
        **options: further keywords of `jax.lax.conv_general_dilated`.

    Returns:
        `[batch, out_height, out_width, out_features]` in the dtype of the inputs.
    """
    numbers = functools.partial(lax.conv_dimension_numbers, lhs.shape, rhs.shape)
    groups = options.get("feature_group_count", 1)
    # What a CPU need not know of, and what is looked at here.
    passed = {k: v for k, v in options.items() if k in ("precision", "out_sharding")}
    seen = ("lhs_dilation", "rhs_dilation", "dimension_numbers", "feature_group_count", *passed)
    is_plain = (
        lhs.ndim == 4
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and numbers(options.get("dimension_numbers")) == numbers(CHANNELS_LAST)
        and all(d == 1 for side in ("lhs", "rhs") for d in options.get(f"{side}_dilation") or ())
        and all(v is None for k, v in options.items() if k not in seen)
    )
    if is_plain:
        down, right = window_strides
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (down, right), padding)
        rows, columns = ((int(low), int(high)) for low, high in padding)
        how = _Convolution((down, right), (rows, columns), tuple(passed.items()))
        if groups == 1 and how.has_windows(lhs, rhs):
            return _conv(*varying_alike(lhs, rhs), how)
        is_depthwise = groups == lhs.shape[3] == rhs.shape[3]
        if is_depthwise and lhs.shape[1:3] == rhs.shape[:2] and rows == columns == (0, 0):
            # Each channel with its own kernel, in the one place where it fits.
            sums = product("nhwc,hwc->nc", lhs, rhs[:, :, 0], options.get("precision"))
            return sums[:, None, None].astype(lhs.dtype)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


class _Convolution(NamedTuple):
    """Everything that decides a plain convolution but its inputs."""

    strides: Pair
    padding: tuple[Pair, Pair]
    options: tuple[tuple[str, Any], ...]

    def pad(self, x: jax.Array, sign: int = 1) -> jax.Array:
        """Pads the images, or crops them where the sign is -1."""
        sides = enumerate(self.padding, start=1)
        return pad(x, {axis: (sign * low, sign * high, 0) for axis, (low, high) in sides})

    def padded_shape(self, x: jax.Array) -> tuple[int, ...]:
        """The shape of the padded images."""
        n, *sides, channels = x.shape
        padded = (side + sum(pads) for side, pads in zip(sides, self.padding, strict=True))
        return (n, *padded, channels)

    def has_windows(self, x: jax.Array, kernel: jax.Array) -> bool:
        """Whether the kernel fits on the padded images at least once."""
        sides = zip(self.padded_shape(x)[1:3], kernel.shape, strict=False)
        return all(size >= taps for size, taps in sides)

    def xla(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The compiler's own."""
        return lax.conv_general_dilated(
            x,
            kernel,
            self.strides,
            self.padding,
            dimension_numbers=CHANNELS_LAST,
            **dict(self.options),
        )

    def on_cpu(self, x: jax.Array, kernel: jax.Array) -> ModuleType:
        """The form that has less work on a CPU.

        Rounding in the Fourier domain is small relative to the brightest part of an image,
        everywhere in it, not to what an output sees. So where the highest precision is asked for,
        or is JAX's default and none is asked for, windows are taken.
        """
        precision = dict(self.options).get("precision")
        if precision is None:
            precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        of_both = precision if isinstance(precision, tuple) else (precision,)
        is_exact = any(p in HIGHEST for p in of_both)
        saves = not is_exact and fourier.is_worthwhile(
            self.padded_shape(x), kernel.shape, self.strides, x.dtype
        )
        return fourier if saves else direct


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, how: _Convolution) -> jax.Array:
    def cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return how.on_cpu(x, kernel).forward(how.pad(x), kernel, how.strides)

    def on_platform(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.platform_dependent(x, kernel, cpu=cpu, default=how.xla)

    return sharded_by_compiler(on_platform, x, kernel, like=x)


def _conv_backward(how: _Convolution, inputs: Any, g: jax.Array) -> tuple[jax.Array, ...]:
    def xla(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(how.xla, x, kernel)[1](g)

    def cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        form, x = how.on_cpu(x, kernel), how.pad(x)
        dx = form.input_gradient(kernel, g, x.shape, how.strides)
        return how.pad(dx, -1), form.kernel_gradient(x, kernel.shape, g, how.strides)

    def on_platform(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        return lax.platform_dependent(x, kernel, g, cpu=cpu, default=xla)

    return sharded_by_compiler(on_platform, *inputs, g, like=inputs)


_conv.defvjp(lambda x, kernel, how: (_conv(x, kernel, how), (x, kernel)), _conv_backward)
