"""Convolution for the platform at hand: XLA's own on GPU and TPU, matrix products on a CPU.

XLA's convolution on a CPU is many times slower than the hardware allows on the strided 9x9
convolutions of a capsule network, most of all its input gradient. The CPU path here is made of
matrix products, which run at the full rate of the machine: those of `direct`, or where it saves
work those of `fourier`. It is XLA's for the small kernels at stride 1 of residual networks.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from capsjax.ops import direct, fourier
from capsjax.ops._arrays import pad, product
from capsjax.ops._meshes import varying_alike
from capsjax.ops.bilinear import bilinear

HIGHEST = ("highest", "float32", lax.Precision.HIGHEST)
CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")

Pair = tuple[int, int]

# Where XLA's own convolution and its gradient of the images are the faster on a CPU: in float32 at
# stride 1 with kernels of up to so many elements, from so many input features on.
SMALL_KERNEL = 25
MANY_FEATURES = 16


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
    than products and a sum, for the gradient of which XLA's convolution is far slower.
    Anything else goes to `jax.lax.conv_general_dilated` on every platform. The choice is made when
    the program is lowered, so one traced program can be compiled for several platforms. Meant for
    the `conv_general_dilated=` argument of `flax.nnx.Conv`. Derivatives of
    any order, forwards and backwards, take the same paths.

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
    precision = options.get("precision")
    passed = {"precision": tuple(precision) if isinstance(precision, list) else precision}
    # What is looked at here: with any other option, it is XLA's.
    seen = ("lhs_dilation", "rhs_dilation", "dimension_numbers", "feature_group_count", *passed)
    is_plain = (
        lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and all(isinstance(side, int) for side in (*lhs.shape[1:], *rhs.shape))  # known sizes
        and 0 not in rhs.shape
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
            shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (lhs, rhs))
            return bilinear(how, lhs, rhs, jax.eval_shape(how.xla, *shapes).shape)
        is_depthwise = groups == lhs.shape[3] == rhs.shape[3] and rhs.shape[2] == 1
        if is_depthwise and lhs.shape[1:3] == rhs.shape[:2] and rows == columns == (0, 0):
            # Each channel with its own kernel, in the one place where it fits.
            sums = product("nhwc,hwc->nc", lhs, rhs[:, :, 0], passed["precision"])
            return sums[:, None, None].astype(lhs.dtype)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


class _Convolution(NamedTuple):
    """Everything that decides a plain convolution but its inputs."""

    strides: Pair
    padding: tuple[Pair, Pair]
    options: tuple[tuple[str, Any], ...]

    def pad(self, x: jax.Array, sign: int = 1, zero: ArrayLike = 0) -> jax.Array:
        """Pads the images with zero, or crops them where the sign is -1."""
        sides = enumerate(self.padding, start=1)
        return pad(x, {axis: (sign * low, sign * high, 0) for axis, (low, high) in sides}, zero)

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of padded images of a shape."""
        n, *sides, channels = shape
        padded = (side + sum(pads) for side, pads in zip(sides, self.padding, strict=True))
        return (n, *padded, channels)

    def has_windows(self, x: jax.Array, kernel: jax.Array) -> bool:
        """Whether the kernel fits on the padded images at least once."""
        sides = zip(self.padded_shape(x.shape)[1:3], kernel.shape, strict=False)
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

    def form_on_cpu(
        self,
        which: str,
        x_shape: Sequence[int],
        kernel_shape: Sequence[int],
        dtype: DTypeLike,
        *,
        alone: bool,
    ) -> Any:
        """The module of the form that takes least time, or None for XLA's, of one kernel `alone`.

        Rounding in the Fourier domain is small relative to the brightest part of an image,
        everywhere in it, not to what an output sees. So where the highest precision is asked for,
        or is JAX's default and none is asked for, windows are taken.
        """
        precision = dict(self.options).get("precision")
        if precision is None:
            precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        of_both = precision if isinstance(precision, tuple) else (precision,)
        is_exact = any(p in HIGHEST for p in of_both)
        padded = self.padded_shape(x_shape)
        rows, columns, features, _ = kernel_shape
        down, right = self.strides
        positions = ((padded[1] - rows) // down + 1) * ((padded[2] - columns) // right + 1)
        sides = zip(kernel_shape, self.padding, strict=False)
        is_small = (
            # Its gradient of kernels is slow in layouts that the program around it may ask for.
            which != "kernel_gradient"
            and alone  # of several kernels XLA makes a convolution in groups, which is slow
            and dtype == jnp.float32
            and self.strides == (1, 1)
            and 1 < rows * columns <= SMALL_KERNEL
            # Where a window sees nothing of the images XLA's gradients are wrong (in JAX 0.10.2).
            and all(0 <= side < size for size, pads in sides for side in pads)
            and features >= MANY_FEATURES
            and positions >= direct.FEW_POSITIONS
        )
        gathers = not is_small and not (
            which == "kernel_gradient" and direct.is_by_example(kernel_shape, positions)
        )
        of_it = (which, padded, kernel_shape, self.strides, dtype)
        if not is_exact and fourier.is_worthwhile(*of_it, gathers=gathers):
            return fourier
        return None if is_small else direct

    def forward(
        self, x: jax.Array, kernel: jax.Array, _shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        """Images and kernel -> outputs."""

        def cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
            form = self.form_on_cpu("forward", x.shape, kernel.shape, x.dtype, alone=alone)
            if form is not None:
                return form.forward(self.pad(x), kernel, self.strides)
            # More windows side by side than columns, thrown away again: of fewer ones XLA (seen in
            # jaxlib 0.10.2) makes a call of a library that may use one core alone, which is the
            # slower but for many more outputs than inputs.
            *_, columns, features, outputs = kernel.shape
            rows, (low, high) = self.padding
            if outputs > 2 * features:
                return self.xla(x, kernel)
            wide = self._replace(padding=(rows, (low, high + columns)), options=())
            return wide.xla(x, kernel)[:, :, :-columns]

        return lax.platform_dependent(x, kernel, cpu=cpu, default=self.xla)

    def to_inputs(
        self, kernel: jax.Array, g: jax.Array, shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        """Kernel and the gradient `g` of the outputs -> that of images of a shape."""

        def cpu(kernel: jax.Array, g: jax.Array) -> jax.Array:
            form = self.form_on_cpu("input_gradient", shape, kernel.shape, g.dtype, alone=alone)
            if form is not None:
                padded = form.input_gradient(kernel, g, self.padded_shape(shape), self.strides)
                return self.pad(padded, -1)
            sides = zip(kernel.shape, self.padding, strict=False)
            rows, columns = ((size - 1 - low, size - 1 - high) for size, (low, high) in sides)
            turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
            return self._replace(padding=(rows, columns), options=()).xla(g, turned)

        def xla(kernel: jax.Array, g: jax.Array) -> jax.Array:
            images, _ = varying_alike(jnp.zeros(shape, g.dtype), g)
            return jax.vjp(lambda x: self.xla(x, kernel), images)[1](g)[0]

        return lax.platform_dependent(kernel, g, cpu=cpu, default=xla)

    def to_kernel(
        self, x: jax.Array, g: jax.Array, shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        """Images and the gradient `g` of the outputs -> that of a kernel of a shape."""

        def cpu(x: jax.Array, g: jax.Array) -> jax.Array:
            form = self.form_on_cpu("kernel_gradient", x.shape, shape, x.dtype, alone=alone)
            if form is fourier:  # what it makes of the images may be there, for the outputs
                return fourier.kernel_gradient(self.pad(x), shape, g, self.strides)
            # A zero that is not known before g is: with any other XLA pads the images of all layers
            # on its way forwards, and keeps them until their turn comes.
            zero = jnp.max(g[:1, 0, 0, 0], initial=0) > jnp.inf
            return direct.kernel_gradient(self.pad(x, zero=zero), shape, g, self.strides)

        def xla(x: jax.Array, g: jax.Array) -> jax.Array:
            kernel, _ = varying_alike(jnp.zeros(shape, g.dtype), g)
            return jax.vjp(lambda kernel: self.xla(x, kernel), kernel)[1](g)[0]

        return lax.platform_dependent(x, g, cpu=cpu, default=xla)
