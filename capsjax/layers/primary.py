"""The lowest capsules: what a convolution sees, cut into capsules."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules, Squash, SquashFunction, norm, squash_from
from capsjax.layers._windows import window_counts
from capsjax.ops import conv_general_dilated

PRIMARY_ORDERS = ("position_major", "type_major", "flat")


class PrimaryCaps(nnx.Module):
    """The lowest capsules: a convolution whose output is cut into capsules and squashed.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 4, which leaves open how. The output
    has `types * dim` channels and `P` positions `p = y * width + x`. Public implementations number
    their capsules in three ways:

    - `"position_major"`: channel `dim * t + k` is component `k` of type `t`, and capsule
      `types * p + t` is the one of type `t` at position `p`;
    - `"type_major"`: the same components, but capsule `P * t + p` is the one of type `t` at
      position `p`;
    - `"flat"`: the output, flattened channel by channel and in each channel position by position,
      is cut into pieces of `dim` numbers: neighbouring positions of one channel, as a rule.

    Args:
        input_shape: `(height, width, channels)` of the features below.
        types: number of capsule types, each with its own filters.
        dim: dimension of a pose.
        kernel_size: side of the square kernel.
        stride: in both directions.
        order: how the output is cut into capsules, one of the three above.
        squash: of the capsules `[batch, num_capsules, dim]`; a function, or the fields of a
            `Squash` by name.
        depthwise: whether each filter sees one channel alone: there are `types * dim` channels
            below, and as many filters (Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491).
        dtype: dtype of the computation; norms are computed in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the input, a size is not a positive integer, order or
            squash is none of these, or a depthwise convolution does not fit the channels below.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        types: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int = 1,
        order: Literal["position_major", "type_major", "flat"] = "position_major",
        squash: SquashFunction = Squash(),  # noqa: B008 (frozen, has no state)
        depthwise: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        positions = window_counts(input_shape, kernel_size, stride, "the capsule convolution")
        self.types = _checks.positive_integer("types", types)
        self.dim = _checks.positive_integer("dim", dim)
        self.num_capsules = math.prod(positions) * self.types
        self.order = _checks.one_of("order", order, PRIMARY_ORDERS)
        self.squash = squash_from(squash)
        channels, filters = input_shape[-1], self.types * self.dim
        if _checks.boolean("depthwise", depthwise) and channels != filters:
            raise ValueError(
                f"{self.types} types of depthwise capsules of {self.dim} need as many channels as "
                f"their product, {filters}, not {channels}"
            )
        self.conv = nnx.Conv(
            channels,
            filters,
            (kernel_size, kernel_size),
            strides=stride,
            padding="VALID",
            feature_group_count=channels if depthwise else 1,
            conv_general_dilated=conv_general_dilated,
            kernel_init=nnx.initializers.glorot_uniform(),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def project(self, features: jax.Array) -> jax.Array:
        """The capsules before squash.

        Args:
            features: `[batch, height, width, channels]`.

        Returns:
            `[batch, num_capsules, dim]` in the layer's dtype.
        """
        maps = self.conv(features)
        batch = maps.shape[0]
        if self.order == "type_major":
            by_position = maps.reshape(batch, -1, self.types, self.dim)
            maps = by_position.transpose(0, 2, 1, 3)
        elif self.order == "flat":
            maps = maps.transpose(0, 3, 1, 2)
        return maps.reshape(batch, self.num_capsules, self.dim)

    def __call__(self, features: jax.Array) -> Capsules:
        """`[batch, height, width, channels]` -> `num_capsules` capsules an image.

        Returns:
            Poses `[batch, num_capsules, dim]` in the layer's dtype and activations
            `[batch, num_capsules]` in float32 at least.
        """
        s = self.project(features)
        pose = self.squash(s)
        return Capsules(pose.astype(s.dtype), norm(pose))
