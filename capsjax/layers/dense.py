"""Capsules that see every capsule below."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax._checks import PositiveInt, checked
from capsjax.capsules import Capsules
from capsjax.layers.routed import RoutedLayer, Transform, kernel_shape, make_votes, sum_votes
from capsjax.routing import (
    AnyRouting,
    Implementation,
    Routed,
    RoutingInputs,
    Sizes,
    route_dense,
    sized,
)
from capsjax.routing._base import needs_of
from capsjax.routing._implementations import check_implementation


class DenseCaps(RoutedLayer):
    """Capsules that see every capsule below (DigitCaps): one transformation matrix for each pair.

    The votes are `u_hat_ij = W_ij u_i` (Sabour, Frosst and Hinton 2017, arXiv:1710.09829,
    equation 2); the routing turns them into the capsules above. With `shared`, all capsules below
    have the same matrices, `u_hat_ij = W_j u_i` (Gu and Tresp 2020, arXiv:1911.07968, section 4).

    A call takes poses `[batch, I, K]` and activations `[batch, I]`, and returns poses
    `[batch, J, D]`, activations `[batch, J]` and the coupling coefficients `[batch, I, J]`, all in
    float32 at least.

    Args:
        in_capsules: number of capsules below.
        in_dim: dimension of their poses.
        out_capsules: number of capsules of this layer, a class each in the last layer.
        out_dim: dimension of their poses.
        routing: maps the votes of one example to this layer's capsules; an object, or a name of
            `list_routings()`. An `UnsizedRouting` is built for this layer's sizes.
        transform: how a matrix makes a vote of a pose, see `make_votes`; with None there are no
            matrices, and a capsule votes for its own pose everywhere, which is for routings that
            tell output capsules apart by something else.
        shared: whether all capsules below share their matrices.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(in_capsules)`, so that the sum of all votes is as long for any number; shares
            of `1 / out_capsules`, as routings begin with, make of it what is squashed.
        implementation: how votes and routing are computed, see `route_dense`; if not given, what
            was measured to be the fastest on a CPU, and `"xla"` elsewhere. Shared or 4x4 matrices
            have the one, `"xla"`.
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: a size is not a positive integer, the transform or the routing is none, or the
            implementation is none or cannot compute that routing or those votes.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.Dynamic()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    @checked
    def __init__(
        self,
        in_capsules: PositiveInt,
        in_dim: PositiveInt,
        out_capsules: PositiveInt,
        out_dim: PositiveInt,
        *,
        routing: AnyRouting,
        transform: Transform | None = "linear",
        shared: bool = False,
        kernel_init: nnx.Initializer | None = None,
        implementation: Implementation | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.input_shape, self.dtype = (in_capsules, in_dim), dtype
        init = kernel_init or nnx.initializers.normal(1 / math.sqrt(in_capsules))
        self.transform = transform
        self.out_capsules = out_capsules
        self.shared = shared
        self.kernel: Any  # a Param, or None
        if transform is not None:
            shape = kernel_shape(transform, in_dim, out_dim)
            matrices = (1 if shared else in_capsules, out_capsules, *shape)
            self.kernel = nnx.Param(init(rngs.params(), matrices, param_dtype))
        elif out_dim == in_dim and not shared:
            self.kernel = nnx.data(None)
        else:
            raise ValueError(
                "transform=None leaves poses as they are, so out_dim is in_dim, here "
                f"{out_dim} and {in_dim}, and there is nothing to be shared"
            )
        sizes = Sizes(in_capsules, in_dim, out_capsules, out_dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)
        self.implementation = check_implementation(implementation, self.routing)
        self._is_plain = transform == "linear" and not shared
        if implementation not in (None, "xla") and not self._is_plain:
            raise ValueError(
                f"implementation {implementation!r} computes a matrix for each pair of capsules, "
                "not shared or 4x4 matrices, for which there is: xla"
            )

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, I, K]` -> votes `[batch, I, J, D]` in the layer's dtype."""
        pose = self._poses(pose)
        if self.transform is None:
            batch, n_in, dim = pose.shape
            return jnp.broadcast_to(pose[:, :, None], (batch, n_in, self.out_capsules, dim))
        kernel = self.kernel[...].astype(self.dtype)
        if not self.shared:
            return make_votes(self.transform, kernel, pose)
        return make_votes(self.transform, kernel, pose[..., None, :])[..., 0, :, :]

    def _routed(self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None) -> Routed:
        if not self._is_plain:
            return super()._routed(capsules, mask, key)
        return route_dense(
            self.routing,
            self.kernel[...].astype(self.dtype),
            *self._below(capsules, mask),
            mask=mask,
            key=key,
            implementation=self.implementation,
        )

    def _inputs(
        self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None
    ) -> RoutingInputs:
        pose, activation = self._below(capsules, mask)
        total = None
        if self.transform is not None and not self.shared and "vote_sum" in needs_of(self.routing):
            total = sum_votes(self.transform, self.kernel[...].astype(self.dtype), pose)
        votes = self.votes(pose)
        return RoutingInputs(votes, activation, pose, mask=mask, key=key, vote_sum=total)
