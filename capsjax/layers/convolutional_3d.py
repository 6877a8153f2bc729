"""Convolutional capsules whose input types vote for all positions at once."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules
from capsjax.layers.convolutional import GridShape
from capsjax.ops import conv_general_dilated
from capsjax.ops.patches import Padding, Windows
from capsjax.routing import Routed, Routing, UnsizedRouting, route
from capsjax.routing._base import Sizes, routed_iterations, sized


class Conv3dCaps(nnx.Module):
    """Capsules on a grid that the capsule types below vote for, each type as a whole.

    Rajasegaran et al. 2019, arXiv:1904.09546, section 3. A vote is a convolution over the poses of
    one type; the filters are the same for all types below, so it is a 3D convolution that goes over
    the types in steps of one. So there are few votes and few parameters. What is routed are not the
    capsules below but their types: each shares itself out over all capsules above, over all types
    and positions jointly.

    Args:
        input_shape: of the capsules below.
        types: number of capsule types.
        dim: dimension of their poses.
        kernel_size: side of the filters.
        stride: in both directions.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction.
        routing: maps the votes `[types below, P * Q * types, dim]` of one example to this layer's
            capsules. An `UnsizedRouting` is built for these sizes. To a routing that asks for them,
            a type has the mean of its activations, and all its poses one after the other.
        kernel_init: initialiser of the filters.
        dtype: dtype of the votes; the routing's norms and softmax are in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the filters are larger than the grid, a size is not a positive integer, or
            another argument has a wrong value.
    """

    def __init__(
        self,
        input_shape: GridShape,
        types: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "VALID",
        routing: Routing | UnsizedRouting,
        kernel_init: nnx.Initializer = nnx.initializers.he_normal(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = input_shape
        types, dim = _checks.positive_integer("types", types), _checks.positive_integer("dim", dim)
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = GridShape(*windows.counts, types, dim)
        self.dtype = dtype
        self.conv = nnx.Conv(
            in_dim,
            types * dim,
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
        above = math.prod(self.output_shape[:3])
        sizes = Sizes(in_types, height * width * in_dim, above, dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, height, width, B, K]` -> votes `[batch, B, P * Q * types, dim]`."""
        by_type = jnp.moveaxis(pose.astype(self.dtype), 3, 1)
        batch, in_types, *map_shape = by_type.shape
        maps = self.conv(by_type.reshape(batch * in_types, *map_shape))
        return maps.reshape(batch, in_types, -1, self.output_shape.dim)

    def __call__(self, capsules: Capsules) -> tuple[Capsules, jax.Array]:
        """Routes the types of capsules below to this layer.

        Args:
            capsules: of `input_shape`.

        Returns:
            Capsules of `output_shape`, and the coupling coefficients `[batch, B, P, Q, types]`; all
            in float32 at least.
        """
        activation, pose = self._types(capsules)
        routed = route(self.routing, self.votes(capsules.pose), activation, pose=pose)
        batch, in_types = activation.shape

        def on_grid(x: jax.Array, *leading: Any) -> jax.Array:
            return x.reshape(*leading, *self.output_shape[:3], *x.shape[len(leading) + 1 :])

        above = Capsules(on_grid(routed.pose, batch), on_grid(routed.activation, batch))
        return above, on_grid(routed.coupling, batch, in_types)

    def iterations(self, capsules: Capsules) -> Routed:
        """What each of the `R` iterations of the routing comes to, arrays `[batch, R, ...]`.

        The capsules above are in one axis, `P * Q * types` of them.
        """
        activation, pose = self._types(capsules)
        return routed_iterations(self.routing, self.votes(capsules.pose), activation, pose=pose)

    def _types(self, capsules: Capsules) -> tuple[jax.Array, jax.Array]:
        """What is routed, the types below: activations `[batch, B]`, poses `[batch, B, H W K]`."""
        pose = jnp.moveaxis(capsules.pose.astype(self.dtype), 3, 1)
        activation = jnp.mean(capsules.activation, axis=(1, 2))
        return activation, pose.reshape(*activation.shape, -1)
