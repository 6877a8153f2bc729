"""A residual network: local features that come about in many small steps."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers.normalization import BatchNorm
from capsjax.ops import conv_general_dilated

# What PyTorch draws for a convolution: uniform, up to one over the root of the terms of a sum.
_uniform_fan_in = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResidualFeatures(nnx.Module):
    """A convolution and stages of residual blocks, as in the ResNets for CIFAR-10.

    He, Zhang, Ren and Sun 2016, arXiv:1512.03385: two 3x3 convolutions, each batch-normalised, are
    added to what they start from, and a rectifier follows. In the first block of a stage both may
    have another stride and other features; then a 1x1 convolution, normalised too, makes the one
    of the other.

    Args:
        input_shape: `(height, width, channels)` of one image.
        features: filters of the blocks of each stage; the first convolution has those of the first.
        blocks: how many blocks there are in each stage.
        strides: of the first block of each stage.
        batch_axis: as of `BatchNorm`, whose other constants are those of PyTorch.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or there is no stage.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        features: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[int],
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = _checks.image_shape(input_shape)
        features = _checks.positive_integers("features", features)
        if not features:
            raise ValueError("features must have a value for each stage, of which there is none")
        options: dict[str, Any] = {
            "batch_axis": batch_axis,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.stem = _Normalised(channels, features[0], kernel_size=3, stride=1, **options)
        stages = zip((features[0], *features), features, blocks, strides, strict=False)
        made = []
        for n_in, n_out, count, stride in stages:
            widths = (n_in, *[n_out] * count)
            for index, (below, above) in enumerate(itertools.pairwise(widths)):
                made.append(_Block(below, above, 1 if index else stride, **options))
            height, width = ((side - 1) // stride + 1 for side in (height, width))
        self.blocks = nnx.List(made)
        self.output_shape = (height, width, features[-1])

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        x = nnx.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nnx.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, n_in: int, n_out: int, stride: int, **options: Any) -> None:
        self.first = _Normalised(n_in, n_out, kernel_size=3, stride=stride, **options)
        self.second = _Normalised(n_out, n_out, kernel_size=3, stride=1, **options)
        is_same = stride == 1 and n_in == n_out
        self.around = nnx.data(
            None if is_same else _Normalised(n_in, n_out, kernel_size=1, stride=stride, **options)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        around = x if self.around is None else self.around(x)
        return nnx.relu(self.second(nnx.relu(self.first(x))) + around)


class _Normalised(nnx.Module):
    """A convolution without biases, padded so that its middle lies on each element, normalised."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        kernel_size: int,
        stride: int,
        batch_axis: str | None,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        around = kernel_size // 2
        self.conv = nnx.Conv(
            n_in,
            n_out,
            (kernel_size, kernel_size),
            strides=stride,
            padding=((around, around), (around, around)),
            use_bias=False,
            conv_general_dilated=conv_general_dilated,
            kernel_init=_uniform_fan_in,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(
            n_out,
            momentum=0.9,
            epsilon=1e-5,
            batch_axis=batch_axis,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))
