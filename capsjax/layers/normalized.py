"""Convolutions that are normalised over the batch."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers.normalization import BatchNorm
from capsjax.ops import conv_general_dilated
from capsjax.ops.patches import Padding, Windows


class NormalizedConv(nnx.Module):
    """A convolution without biases, batch normalisation, and a rectifier.

    Args:
        input_shape: `(height, width, channels)` of the maps below.
        features: number of filters.
        kernel_size: side of the square kernel.
        stride: in both directions.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction.
        rectified: whether there is a rectifier.
        kernel_init: initialiser of the filters; if not given, uniform with the deviation of He et
            al. 2015, arXiv:1502.01852.
        batch_axis: as of `BatchNorm`, whose other constants are those of PyTorch.
        dtype: dtype of the computation; statistics of a batch are float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the input, or a size is not a positive integer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "VALID",
        rectified: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.he_uniform(),  # noqa: B008 (a function)
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = _checks.image_shape(input_shape)
        features = _checks.positive_integer("features", features)
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = (*windows.counts, features)
        self.rectified = _checks.boolean("rectified", rectified)
        self.conv = nnx.Conv(
            channels,
            features,
            (kernel_size, kernel_size),
            strides=stride,
            padding=windows.padding,
            use_bias=False,
            conv_general_dilated=conv_general_dilated,
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(
            features,
            momentum=0.9,
            epsilon=1e-5,
            batch_axis=batch_axis,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, maps: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        maps = self.norm(self.conv(maps))
        return nnx.relu(maps) if self.rectified else maps
