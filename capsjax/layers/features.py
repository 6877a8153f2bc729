"""The local features that capsules are made of."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers._windows import window_counts
from capsjax.ops import conv_general_dilated

# Capsules begin short, but long enough to learn from: class capsules of about 0.05 on MNIST. With
# Glorot's values, which one input channel and 256 filters make twenty times smaller than He's, they
# begin at 0.0001, in the flat part of squash; with He's at 0.5, all classes present.
_fan_in_fifth = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")


class ConvFeatures(nnx.Module):
    """An unpadded convolution and a rectifier: the local features that capsules are made of.

    Args:
        input_shape: `(height, width, channels)` of one image.
        features: number of filters.
        kernel_size: side of the square kernel.
        stride: in both directions.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the image, or a size is not a positive integer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        features = _checks.positive_integer("features", features)
        self.output_shape = (
            *window_counts(input_shape, kernel_size, stride, "the first convolution"),
            features,
        )
        self.conv = nnx.Conv(
            input_shape[-1],
            features,
            (kernel_size, kernel_size),
            strides=stride,
            padding="VALID",
            conv_general_dilated=conv_general_dilated,
            kernel_init=_fan_in_fifth,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        return nnx.relu(self.conv(images))
