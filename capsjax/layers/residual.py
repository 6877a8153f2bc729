"""A residual network: local features that come about in many small steps."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers.normalized import NormalizedConv
from capsjax.ops.patches import Padding

_AROUND: Padding = ((1, 1), (1, 1))

# What PyTorch draws for a convolution: uniform, up to one over the root of the terms of a sum.
_uniform_fan_in = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResidualFeatures(nnx.Module):
    """A convolution and stages of residual blocks, as in the ResNets for CIFAR-10.

    He, Zhang, Ren and Sun 2016, arXiv:1512.03385: two 3x3 convolutions, each batch-normalised, are
    added to what they start from, and a rectifier follows. In the first block of a stage both may
    have another stride and other features; then a 1x1 convolution, normalised too, makes the one
    of the other, or features are added that are zero, half of them before what there is (options B
    and A of section 4.1).

    Args:
        input_shape: `(height, width, channels)` of one image.
        features: filters of the blocks of each stage; the first convolution has those of the first.
        blocks: how many blocks there are in each stage.
        strides: of the first block of each stage.
        shortcut: what makes the one of the other, a `"convolution"` or `"zeros"`; with the latter,
            a block has no fewer features than the one below.
        kernel_init: initialiser of all filters; if not given, what PyTorch draws.
        batch_axis: as of `BatchNorm`, whose other constants are those of PyTorch.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, there is no stage, or there are fewer features
            than zeros can be added to.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        features: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[int],
        shortcut: Literal["convolution", "zeros"] = "convolution",
        kernel_init: nnx.Initializer = _uniform_fan_in,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        input_shape = _checks.image_shape(input_shape)
        _checks.one_of("shortcut", shortcut, ("convolution", "zeros"))
        features = _checks.positive_integers("features", features)
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
        self.stem = NormalizedConv(
            input_shape, features[0], kernel_size=3, padding=_AROUND, **options
        )
        made: list[_Block] = []
        shape = self.stem.output_shape
        for filters, count, stride in zip(features, blocks, strides, strict=False):
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
        self,
        input_shape: tuple[int, int, int],
        features: int,
        stride: int,
        zeros: bool,
        **options: Any,
    ) -> None:
        around: dict[str, Any] = {"kernel_size": 3, "padding": _AROUND, **options}
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
