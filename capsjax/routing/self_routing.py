"""Self-routing (Hahn, Pyeon and Kim 2019): each capsule decides by itself where it goes."""

import dataclasses
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import accumulation_dtype
from capsjax.routing._base import Routed, Routing, Sizes, Softmax, softmax_over_out


class SelfRoutingTrace(NamedTuple):
    """What self-routing computes on one example, in `R = 1` iteration.

    Attributes:
        logits: `[R, I, J]`, what the routing network of each input capsule says of its pose.
        c: `[R, I, J]`, the coupling coefficients.
        a: `[R, J]`, the activations of the output capsules.
        u: `[R, J, D]`, their poses.
    """

    logits: jax.Array
    c: jax.Array
    a: jax.Array
    u: jax.Array


@dataclasses.dataclass(frozen=True)
class SelfRouter:
    """`SelfRouting`, before it is known how many capsules it connects.

    Attributes:
        epsilon: from 0 to 1; a sum of activations that is not above it counts as none. The paper
            divides by any.

    Raises:
        ValueError: it is not.
    """

    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        """Checks the values."""
        _checks.fraction("epsilon of self-routing", self.epsilon)

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Routing:
        """Makes the `SelfRouting`, see `UnsizedRouting`."""
        routing = SelfRouting(
            sizes.in_capsules,
            sizes.in_dim,
            sizes.out_capsules,
            settings=self,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        # That it needs the poses, too, is in its signature; the type has no word for it.
        return cast(Routing, routing)


class SelfRouting(nnx.Module):
    """Routing without agreement: Hahn, Pyeon and Kim 2019, Self-Routing Capsule Networks, NeurIPS.

    Every input capsule has a routing network of its own, one linear layer, that sees its pose and
    nothing else; `c_i = softmax(W_i^route u_i)` over the output capsules. As in a mixture of
    experts (section 3), with `a_i` for the activations below and `u_hat_ij` for the votes,

        `a_j = sum_i c_ij a_i / sum_i a_i`,
        `u_j = sum_i c_ij a_i u_hat_ij / sum_i c_ij a_i`.

    The routing networks have a bias and start at zero, as in the authors' code
    (github.com/coder3000/SR-CapsNet), so that training begins with uniform coupling. There, in a
    convolution, output capsules compete within each patch alone. The batch normalisation of poses
    that follows in their networks is a layer's and not done here.

    In a dense layer the activations of all output capsules together are 1: they are class
    probabilities, whose logarithm the authors give to the loss. As presences in [0, 1] they suit a
    margin loss, too.

    Where nothing below is active, the paper divides zero by zero. Here the output capsules are then
    inactive, and their poses zero, with gradients of zero.

    Args:
        in_capsules: number of capsules below, `I`.
        in_dim: dimension of their poses, `K`.
        out_capsules: number of capsules above, `J`.
        settings: its options.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values; they are zero, and draw none.
    """

    def __init__(
        self,
        in_capsules: int,
        in_dim: int,
        out_capsules: int,
        *,
        settings: SelfRouter = SelfRouter(),
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        del rngs
        self.settings = settings
        self.kernel = nnx.Param(jnp.zeros((in_capsules, out_capsules, in_dim), param_dtype))
        self.bias = nnx.Param(jnp.zeros((in_capsules, out_capsules), param_dtype))

    def __call__(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array,
        softmax: Softmax = softmax_over_out,
    ) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]`, pose `[I, K]` -> `Routed`."""
        return self.outcome(self._state(votes, activation, pose, softmax))

    def trace(
        self,
        votes: jax.Array,
        activation: jax.Array,
        *,
        pose: jax.Array,
        softmax: Softmax = softmax_over_out,
    ) -> SelfRoutingTrace:
        """Routes one example and keeps what it computes, arrays `[1, ...]`."""
        state = self._state(votes, activation, pose, softmax)
        return jax.tree.map(lambda x: x[None], state)

    def outcome(self, state: SelfRoutingTrace) -> Routed:
        """What a trace comes to."""
        return Routed(pose=state.u, activation=state.a, coupling=state.c)

    def _state(
        self, u_hat: jax.Array, a_in: jax.Array, u_in: jax.Array, softmax: Softmax
    ) -> SelfRoutingTrace:
        n_in, n_out, _ = u_hat.shape
        if (n_in, n_out, u_in.shape[-1]) != self.kernel.shape:
            raise ValueError(
                f"self-routing with a kernel of shape {self.kernel.shape} cannot route votes of "
                f"shape {u_hat.shape} of poses of shape {u_in.shape}"
            )
        dtype = accumulation_dtype(u_hat.dtype)
        W, b = self.kernel[...].astype(dtype), self.bias[...].astype(dtype)
        a_in = a_in.astype(dtype)

        logits = jnp.einsum("ijk,ik->ij", W, u_in.astype(dtype)) + b
        c = softmax(logits)
        routed = c * a_in[:, None]
        mass = jnp.sum(routed, axis=0)
        a = self._ratio(mass, jnp.sum(a_in))
        share = self._ratio(routed, mass[None])
        u = jnp.einsum("ij,ijd->jd", share.astype(u_hat.dtype), u_hat, preferred_element_type=dtype)
        return SelfRoutingTrace(logits, c, a, u)

    def _ratio(self, part: jax.Array, whole: jax.Array) -> jax.Array:
        is_some = whole > self.settings.epsilon
        return jnp.where(is_some, part / jnp.where(is_some, whole, 1), 0)
