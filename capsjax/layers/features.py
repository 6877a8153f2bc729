"""The local features that capsules are made of."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.layers._windows import window_counts
from capsjax.layers.normalization import BatchNorm
from capsjax.ops import conv_general_dilated

# Capsules begin short, but long enough to learn from: class capsules of about 0.05 on MNIST. With
# Glorot's values, which one input channel and 256 filters make twenty times smaller than He's, they
# begin at 0.0001, in the flat part of squash; with He's at 0.5, all classes present.
_fan_in_fifth = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")


class ConvFeatures(nnx.Module):
    """A convolution and a rectifier: the local features that capsules are made of.

    Args:
        input_shape: `(height, width, channels)` of one image.
        features: number of filters.
        kernel_size: side of the square kernel.
        stride: in both directions.
        padding: zeros on each side of the image.
        normalize: whether a batch is normalised between the two, see `BatchNorm`.
        norm_momentum: see there.
        norm_epsilon: see there.
        batch_axis: see there.
        dtype: dtype of the computation; statistics of a batch are float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the padded image, a size is not a positive integer, or
            another argument has a wrong value.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        normalize: bool = False,
        norm_momentum: float = 0.99,
        norm_epsilon: float = 1e-3,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        features = _checks.positive_integer("features", features)
        padding = _checks.not_negative_integer("padding", padding)
        padded = tuple(side + 2 * padding for side in input_shape[:2])
        self.output_shape = (
            *window_counts(padded, kernel_size, stride, "the first convolution"),
            features,
        )
        self.conv = nnx.Conv(
            input_shape[-1],
            features,
            (kernel_size, kernel_size),
            strides=stride,
            padding=padding,
            conv_general_dilated=conv_general_dilated,
            kernel_init=_fan_in_fifth,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = nnx.data(
            BatchNorm(
                features,
                momentum=norm_momentum,
                epsilon=norm_epsilon,
                batch_axis=batch_axis,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            if _checks.boolean("normalize", normalize)
            else None
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        maps = self.conv(images)
        return nnx.relu(maps if self.norm is None else self.norm(maps))
