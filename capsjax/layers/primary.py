"""The lowest capsules: what a convolution sees, cut into capsules or on a grid."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import ImageShape, Number, PositiveInt, checked, positive_integers
from capsjax.capsules import Capsules, Squash, SquashFunction, accumulation_dtype, norm
from capsjax.layers.features import WindowConv
from capsjax.ops._arrays import split
from capsjax.ops.patches import Padding, Windows


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
        scale: by which the output of the convolution is multiplied, before its bias is added.
        depthwise: whether each filter sees one channel alone: there are `types * dim` channels
            below, and as many filters (Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491).
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: the kernel is larger than the input, a size is not a positive integer, order or
            squash is none of these, or a depthwise convolution does not fit the channels below.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> primary = capsjax.PrimaryCaps(
        ...     (20, 20, 4), types=3, dim=8, kernel_size=9, stride=2, rngs=nnx.Rngs(0)
        ... )
        >>> primary(jnp.ones((2, 20, 20, 4))).pose.shape, primary.num_capsules
        ((2, 108, 8), 108)
    """

    @checked
    def __init__(
        self,
        input_shape: ImageShape,
        types: PositiveInt,
        dim: PositiveInt,
        *,
        kernel_size: int,
        stride: int = 1,
        order: Literal["position_major", "type_major", "flat"] = "position_major",
        squash: SquashFunction = Squash(),  # noqa: B008 (frozen, has no state)
        scale: Number = 1.0,
        depthwise: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = input_shape
        windows = Windows.of((height, width), kernel_size, stride, "VALID")
        self.types, self.dim, self.order = types, dim, order
        self.squash, self.scale = squash, scale
        self.num_capsules = math.prod(windows.counts) * types
        filters = types * dim
        if depthwise and channels != filters:
            raise ValueError(
                f"{types} types of depthwise capsules of {dim} need as many channels as their "
                f"product, {filters}, not {channels}"
            )
        self.conv = WindowConv(
            windows,
            channels,
            filters,
            feature_group_count=channels if depthwise else 1,
            kernel_init=nnx.initializers.glorot_uniform(),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def project(self, features: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> the capsules before squash, in the layer's dtype.

        They are `[batch, num_capsules, dim]`.
        """
        maps = self.conv(features if self.scale == 1 else features * self.scale)
        if self.order == "type_major":
            by_position = split(lax.collapse(maps, 1, 3), 2, self.types, self.dim)
            maps = by_position.transpose(0, 2, 1, 3)
        elif self.order == "flat":
            maps = maps.transpose(0, 3, 1, 2)
        return split(lax.collapse(maps, 1), 1, self.num_capsules, self.dim)

    def __call__(self, features: jax.Array) -> Capsules:
        """`[batch, height, width, channels]` -> `num_capsules` capsules an image.

        Returns:
            Poses `[batch, num_capsules, dim]` in the layer's dtype and activations
            `[batch, num_capsules]` in float32 at least.
        """
        s = self.project(features)
        pose = self.squash(s)
        return Capsules(pose.astype(s.dtype), norm(pose))


class GridShape(NamedTuple):
    """The shape of capsules on a grid.

    Such capsules are `Capsules` of poses `[batch, height, width, types, dim]` and activations
    `[batch, height, width, types]`.

    Attributes:
        height: positions below one another.
        width: positions side by side.
        types: capsules at each position.
        dim: dimension of their poses.

    Examples:
        >>> import capsjax
        >>> grid = capsjax.GridShape(height=6, width=6, types=32, dim=8)
        >>> grid.height * grid.width * grid.types
        1152
    """

    height: int
    width: int
    types: int
    dim: int


def _grid(name: str, value: Any) -> GridShape:
    sizes = positive_integers(name, value)
    if len(sizes) != len(GridShape._fields):
        raise ValueError(f"{name} must be (height, width, types, dim), not {value!r}")
    return GridShape(*sizes)


Grid = Annotated[GridShape, _grid]
"""A `GridShape` as an argument: any four whole numbers of at least 1."""


class ConvPrimaryCaps(nnx.Module):
    """The lowest capsules of a convolutional network: a convolution to poses and activations.

    Hinton, Sabour and Frosst 2018, section 4: poses are learned linear maps of the features, and
    activations the sigmoid of another one. With `activation="length"` they are lengths, after
    `squash` if there is one; with `"one"` all capsules are there.

    Args:
        input_shape, types, dim, dtype, param_dtype, rngs: see `PrimaryCaps`.
        kernel_size, stride: see there.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction.
        activation: where activations come from, `"sigmoid"`, `"length"` or `"one"`; or `"logit"`
            for what they are the sigmoid of, to be normalised, see `CapsuleNorm`.
        activation_offset: added to `"logit"`, and to what the sigmoid of `"sigmoid"` is taken of.
        squash: of the poses; a function, or the fields of a `Squash` by name; None for none.
        use_bias: whether the convolution adds learned numbers.
        kernel_init: initialiser of its filters, first those of the poses, capsule by capsule, then
            those of the activations.

    Raises:
        ValueError: the kernel is larger than the input, a size is not a positive integer, or
            another argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> primary = capsjax.ConvPrimaryCaps((8, 8, 4), types=3, dim=16, rngs=nnx.Rngs(0))
        >>> primary(jnp.ones((2, 8, 8, 4))).pose.shape
        (2, 8, 8, 3, 16)
    """

    @checked
    def __init__(
        self,
        input_shape: ImageShape,
        types: PositiveInt,
        dim: PositiveInt,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        padding: str | Padding = "VALID",
        activation: Literal["sigmoid", "logit", "length", "one"] = "sigmoid",
        activation_offset: Number = 0.0,
        squash: SquashFunction | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.glorot_uniform(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = input_shape
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = GridShape(*windows.counts, types, dim)
        self.activation, self.activation_offset, self.squash = activation, activation_offset, squash
        self.pose = WindowConv(
            windows,
            channels,
            types * (dim + (activation in ("sigmoid", "logit"))),
            use_bias=use_bias,
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, features: jax.Array) -> Capsules:
        """`[batch, height, width, channels]` -> capsules of `output_shape`.

        Returns:
            Poses in the layer's dtype and activations in float32 at least.
        """
        _, _, types, dim = self.output_shape
        maps = self.pose(features)
        pose = split(maps[..., : types * dim], 3, types, dim)
        if self.squash is not None:
            pose = self.squash(pose).astype(maps.dtype)
        if self.activation in ("sigmoid", "logit"):
            logits = maps[..., types * dim :]
            logits = logits.astype(accumulation_dtype(logits.dtype)) + self.activation_offset
            activation = nnx.sigmoid(logits) if self.activation == "sigmoid" else logits
        elif self.activation == "length":
            activation = norm(pose)
        else:
            activation = jnp.ones_like(pose[..., 0], accumulation_dtype(pose.dtype))
        return Capsules(pose, activation)
