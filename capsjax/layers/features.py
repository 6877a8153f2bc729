"""The local features that capsules are made of."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax._checks import (
    Fraction,
    ImageShape,
    PositiveInt,
    PositiveInts,
    checked,
    not_negative_integer,
    sizes_by_layer,
)
from capsjax.layers.normalization import BatchNorm
from capsjax.ops import conv_general_dilated
from capsjax.ops.patches import Padding, Windows

# Class capsules of CapsNet begin with lengths of about 0.005 on MNIST so, short but long enough to
# learn from; with Glorot's values, which one input channel and 256 filters make twenty times
# smaller than He's, of 0.00001, in the flat part of squash; with He's of 0.05.
_fan_in_fifth = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")

# What PyTorch draws for a convolution: uniform, up to one over the root of the terms of a sum.
_uniform_fan_in = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class WindowConv(nnx.Conv):
    """A convolution whose filters see what windows see, in the library's own implementation.

    It refuses maps of another shape `[batch, height, width, channels]` with a ValueError.
    """

    def __init__(self, windows: Windows, n_in: int, n_out: int, **options: Any) -> None:
        super().__init__(
            n_in,
            n_out,
            (windows.size, windows.size),
            strides=windows.stride,
            padding=windows.padding,
            conv_general_dilated=conv_general_dilated,
            **options,
        )
        self.input_shape = (*windows.grid, n_in)

    def __call__(self, maps: jax.Array, out_sharding: Any = None) -> jax.Array:
        _checks.of_each("images or maps", maps, self.input_shape)
        return super().__call__(maps, out_sharding)


class ConvFeatures(nnx.Module):
    """A convolution and a rectifier: the local features that capsules are made of.

    Args:
        input_shape: `(height, width, channels)` of the images or maps below.
        features: number of filters.
        kernel_size: side of the square kernel.
        stride: in both directions.
        padding: zeros on each side; or `"VALID"`, `"SAME"`, or a pair (low, high) for each
            direction.
        use_bias: whether the convolution adds learned numbers.
        rectified: whether there is a rectifier.
        negative_slope: what it multiplies negative numbers by, from 0 to 1; a leaky one has 0.01.
        normalize: whether a batch is normalised between the two, see `BatchNorm`.
        norm_momentum, norm_epsilon, batch_axis: see there.
        instance_norm: whether there each map of each image is given mean 0 and variance 1 instead,
            with 1e-5 added to the variance.
        kernel_init: initialiser of the filters.
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: the kernel is larger than the padded image, a size is not a positive integer, or
            another argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> features = capsjax.ConvFeatures((28, 28, 1), 32, kernel_size=9, rngs=nnx.Rngs(0))
        >>> features(jnp.ones((2, 28, 28, 1))).shape
        (2, 20, 20, 32)
    """

    @checked
    def __init__(
        self,
        input_shape: ImageShape,
        features: PositiveInt,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: int | str | Padding = 0,
        use_bias: bool = True,
        rectified: bool = True,
        negative_slope: Fraction = 0.0,
        normalize: bool = False,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        batch_axis: str | None = None,
        instance_norm: bool = False,
        kernel_init: nnx.Initializer = _fan_in_fifth,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = input_shape
        if not isinstance(padding, str | Sequence):
            side = not_negative_integer("padding", padding)
            padding = ((side, side), (side, side))
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = (*windows.counts, features)
        self.rectified, self.negative_slope = rectified, negative_slope
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = WindowConv(
            windows, channels, features, use_bias=use_bias, kernel_init=kernel_init, **options
        )
        options |= {"momentum": norm_momentum, "epsilon": norm_epsilon, "batch_axis": batch_axis}
        norm: Any = BatchNorm(features, **options) if normalize else None
        self.norm = nnx.data(per_instance(features, dtype) if instance_norm else norm)

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        maps = self.conv(images)
        maps = maps if self.norm is None else self.norm(maps)
        if self.rectified and self.negative_slope:
            return jnp.where(maps > 0, maps, self.negative_slope * maps)
        return nnx.relu(maps) if self.rectified else maps


def per_instance(features: int, dtype: DTypeLike) -> nnx.InstanceNorm:
    """Normalises each map of each image by itself, with PyTorch's epsilon and nothing to learn."""
    options: dict[str, Any] = {"use_bias": False, "use_scale": False, "use_fast_variance": False}
    return nnx.InstanceNorm(features, epsilon=1e-5, dtype=dtype, rngs=nnx.Rngs(0), **options)


NormalizedConv = functools.partial(
    ConvFeatures,
    use_bias=False,
    normalize=True,
    norm_momentum=0.9,
    norm_epsilon=1e-5,
    kernel_init=nnx.initializers.he_uniform(),
)
"""A convolution without biases, batch normalisation with PyTorch's constants, and a rectifier.

The initial values are uniform, with the deviation of He et al. 2015, arXiv:1502.01852.
"""


class ResidualFeatures(nnx.Module):
    """A convolution and stages of residual blocks, as in the ResNets for CIFAR-10.

    He, Zhang, Ren and Sun 2016, arXiv:1512.03385: two 3x3 convolutions, each batch-normalised, are
    added to what they start from, and a rectifier follows. In the first block of a stage both may
    have another stride and other features; then a 1x1 convolution, normalised too, makes the one
    of the other, or features are added that are zero, half of them before what there is (options B
    and A of section 4.1).

    Args:
        input_shape, dtype, param_dtype, rngs: see `ConvFeatures`.
        features: filters of the blocks of each stage; the first convolution has those of the first.
        blocks: how many blocks there are in each stage.
        strides: of the first block of each stage.
        shortcut: what makes the one of the other, a `"convolution"` or `"zeros"`; with the latter,
            a block has no fewer features than the one below.
        kernel_init: initialiser of all filters; if not given, what PyTorch draws.
        batch_axis: as of `BatchNorm`, whose other constants are those of PyTorch.

    Raises:
        ValueError: a size is not a positive integer, there is no stage, or there are fewer features
            than zeros can be added to.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> features = capsjax.layers.ResidualFeatures(
        ...     (8, 8, 3), features=(8, 16), blocks=(1, 1), strides=(1, 2), rngs=nnx.Rngs(0)
        ... )
        >>> features(jnp.ones((2, 8, 8, 3))).shape
        (2, 4, 4, 16)
    """

    @checked
    def __init__(
        self,
        input_shape: ImageShape,
        *,
        features: PositiveInts,
        blocks: Sequence[int],
        strides: Sequence[int],
        shortcut: Literal["convolution", "zeros"] = "convolution",
        kernel_init: nnx.Initializer = _uniform_fan_in,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if not features:
            raise ValueError("features must have a value for each stage, of which there is none")
        options: dict[str, Any] = {
            "rectified": False,
            "kernel_init": kernel_init,
            "batch_axis": batch_axis,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.stem = NormalizedConv(input_shape, features[0], kernel_size=3, padding=1, **options)
        made: list[_Block] = []
        shape = self.stem.output_shape
        stages = sizes_by_layer("stage", features=features, blocks=blocks, strides=strides)
        for filters, count, stride in stages:
            for index in range(count):
                step = 1 if index else stride
                made.append(_Block(shape, filters, step, shortcut == "zeros", **options))
                shape = made[-1].output_shape
        self.blocks = nnx.List(made)
        self.output_shape = shape

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        x = nnx.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nnx.Module):
    """Two convolutions beside a way around them."""

    def __init__(
        self, input_shape: Sequence[int], features: int, stride: int, zeros: bool, **options: Any
    ) -> None:
        around: dict[str, Any] = {"kernel_size": 3, "padding": 1, **options}
        self.first = NormalizedConv(input_shape, features, stride=stride, **around)
        self.second = NormalizedConv(self.first.output_shape, features, **around)
        self.output_shape = self.second.output_shape
        self.stride, self.added = stride, features - input_shape[2]
        is_same = stride == 1 and self.added == 0
        if zeros and self.added < 0:
            raise ValueError(
                f"{features} features cannot be those of {input_shape[2]} and zeros: choose "
                "shortcut='convolution'"
            )
        self.around = nnx.data(
            None
            if is_same or zeros
            else NormalizedConv(input_shape, features, kernel_size=1, stride=stride, **options)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        way = self.second(nnx.relu(self.first(x)))
        return nnx.relu(way + self._around(x).astype(way.dtype))

    def _around(self, x: jax.Array) -> jax.Array:
        if self.around is not None:
            return self.around(x)
        before = self.added // 2
        zeros = ((0, 0), (0, 0), (0, 0), (before, self.added - before))
        return jnp.pad(x[:, :: self.stride, :: self.stride], zeros)
