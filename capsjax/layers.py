"""Capsule layers: modules that make capsules or votes, and hand the votes to a routing."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import (
    Capsules,
    Squash,
    SquashFunction,
    accumulation_dtype,
    norm,
    squash_from,
)
from capsjax.ops import conv_general_dilated
from capsjax.routing import Implementation, Routing, UnsizedRouting, dense_votes, route_dense
from capsjax.routing.dense import check_implementation
from capsjax.routing.protocol import Sizes, sized

_glorot_uniform = nnx.initializers.glorot_uniform()
# Capsules begin short, but long enough to learn from: class capsules of about 0.05 on MNIST. With
# Glorot's values, which one input channel and 256 filters make twenty times smaller than He's, they
# begin at 0.0001, in the flat part of squash; with He's at 0.5, all classes present.
_fan_in_fifth = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")

PRIMARY_ORDERS = ("position_major", "type_major", "flat")
COMBINATIONS = ("concat", "sum")


def _window_counts(
    image_shape: Sequence[int], kernel_size: int, stride: int, what: str
) -> tuple[int, int]:
    """Output height and width of an unpadded convolution over `(height, width, ...)`."""
    kernel_size = _checks.positive_integer("kernel_size", kernel_size)
    stride = _checks.positive_integer("stride", stride)
    height, width = ((size - kernel_size) // stride + 1 for size in image_shape[:2])
    if height < 1 or width < 1:
        raise ValueError(
            f"{what} with a {kernel_size}x{kernel_size} kernel does not fit on an input of "
            f"{image_shape[0]}x{image_shape[1]}: choose a smaller kernel"
        )
    return height, width


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
            *_window_counts(input_shape, kernel_size, stride, "the first convolution"),
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
        dtype: dtype of the computation; norms are computed in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the input, a size is not a positive integer, or order
            or squash is none of these.
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
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        positions = _window_counts(input_shape, kernel_size, stride, "the capsule convolution")
        self.types = _checks.positive_integer("types", types)
        self.dim = _checks.positive_integer("dim", dim)
        self.num_capsules = math.prod(positions) * self.types
        self.order = _checks.one_of("order", order, PRIMARY_ORDERS)
        self.squash = squash_from(squash)
        self.conv = nnx.Conv(
            input_shape[-1],
            self.types * self.dim,
            (kernel_size, kernel_size),
            strides=stride,
            padding="VALID",
            conv_general_dilated=conv_general_dilated,
            kernel_init=_glorot_uniform,
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


class DenseCaps(nnx.Module):
    """Capsules that see every capsule below (DigitCaps): one transformation matrix for each pair.

    The votes are `u_hat_ij = W_ij u_i` (Sabour, Frosst and Hinton 2017, arXiv:1710.09829,
    equation 2); the routing turns them into the capsules above.

    Args:
        in_capsules: number of capsules below.
        in_dim: dimension of their poses.
        out_capsules: number of capsules of this layer, a class each in the last layer.
        out_dim: dimension of their poses.
        routing: maps the votes of one example to this layer's capsules. An `UnsizedRouting` is
            built for this layer's sizes.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(in_capsules)`, since a capsule is a sum of as many votes.
        implementation: how votes and routing are computed, see `route_dense`; if not given, what
            was measured to be the fastest where the program runs.
        dtype: dtype of the votes; the routing's norms and softmax are in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, the routing is none, or the implementation is
            none or cannot compute that routing.
    """

    def __init__(
        self,
        in_capsules: int,
        in_dim: int,
        out_capsules: int,
        out_dim: int,
        *,
        routing: Routing | UnsizedRouting,
        kernel_init: nnx.Initializer | None = None,
        implementation: Implementation | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        in_capsules = _checks.positive_integer("in_capsules", in_capsules)
        out_capsules = _checks.positive_integer("out_capsules", out_capsules)
        out_dim = _checks.positive_integer("out_dim", out_dim)
        in_dim = _checks.positive_integer("in_dim", in_dim)
        self.dtype = dtype
        init = kernel_init or nnx.initializers.normal(1 / math.sqrt(in_capsules))
        self.kernel = nnx.Param(
            init(rngs.params(), (in_capsules, out_capsules, out_dim, in_dim), param_dtype)
        )
        sizes = Sizes(in_capsules, in_dim, out_capsules, out_dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)
        self.implementation = check_implementation(implementation, self.routing)

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, I, K]` -> votes `[batch, I, J, D]` in the layer's dtype."""
        return dense_votes(self.kernel[...].astype(self.dtype), pose.astype(self.dtype))

    def __call__(self, capsules: Capsules) -> tuple[Capsules, jax.Array]:
        """Routes the capsules below to this layer.

        Args:
            capsules: poses `[batch, I, K]` and activations `[batch, I]`.

        Returns:
            This layer's capsules, poses `[batch, J, D]` and activations `[batch, J]`, and the
            coupling coefficients `[batch, I, J]`; all in float32 at least.
        """
        routed = route_dense(
            self.routing,
            self.kernel[...].astype(self.dtype),
            capsules.pose.astype(self.dtype),
            capsules.activation,
            implementation=self.implementation,
        )
        return Capsules(routed.pose, routed.activation), routed.coupling


class Decoder(nnx.Module):
    """Reconstructs an image from the capsule of one class (Sabour et al. 2017, section 4.1).

    The capsules of all other classes are set to zero, what is left is flattened class by class, and
    goes through dense layers: rectifiers in between and a sigmoid at the end. One public
    implementation sums over the classes instead, which leaves the pose of the one.

    Args:
        num_capsules: number of class capsules.
        dim: dimension of their poses.
        image_shape: `(height, width, channels)` of the image.
        hidden: sizes of the hidden layers.
        combine: the first layer sees the poses of all capsules one after the other, `"concat"`, or
            their `"sum"`.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or `combine` is neither of the two.
    """

    def __init__(
        self,
        num_capsules: int,
        dim: int,
        image_shape: Sequence[int],
        *,
        hidden: Sequence[int],
        combine: Literal["concat", "sum"] = "concat",
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        num_capsules = _checks.positive_integer("num_capsules", num_capsules)
        dim = _checks.positive_integer("dim", dim)
        hidden = _checks.positive_integers("hidden", hidden)
        self.image_shape = _checks.image_shape(image_shape)
        self.combine = _checks.one_of("combine", combine, COMBINATIONS)
        inputs = num_capsules * dim if combine == "concat" else dim
        sizes = (inputs, *hidden, math.prod(self.image_shape))
        self.layers = nnx.List(
            nnx.Linear(
                n_in,
                n_out,
                kernel_init=_glorot_uniform,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for n_in, n_out in itertools.pairwise(sizes)
        )

    def __call__(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes the capsules that the mask keeps.

        Args:
            pose: `[batch, J, D]`.
            mask: `[batch, J]`, 1 for the capsules to decode and 0 for the others.

        Returns:
            Images `[batch, height, width, channels]` with values from 0 to 1, in float32 at least.
        """
        x = pose * mask[..., None].astype(pose.dtype)
        x = jnp.sum(x, axis=1) if self.combine == "sum" else x.reshape(x.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        x = self.layers[-1](x)
        x = nnx.sigmoid(x.astype(accumulation_dtype(x.dtype)))
        return x.reshape(x.shape[0], *self.image_shape)
