"""Dynamic routing whose logits start from a learned prior."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax.capsules import accumulation_dtype
from capsjax.routing._base import Routed, Sizes, Softmax, softmax_over_out
from capsjax.routing.dynamic import DynamicRouting, RoutingTrace


class PriorRouting(nnx.Module):
    """Dynamic routing that starts from a log prior `b [I, J]`, which all examples share.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 2: the initial logits are log prior
    probabilities that can be learned together with the weights. They start at zero, which is what
    routing without a prior starts from.

    Args:
        in_capsules: number of capsules below, `I`.
        out_capsules: number of capsules above, `J`.
        routing: what is done from the prior on.
        param_dtype: dtype of the prior.
        rngs: source of the initial values; the prior is zero and draws none.
    """

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        *,
        routing: DynamicRouting = DynamicRouting(),  # noqa: B008 (frozen, has no state)
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        del rngs
        self.routing = routing
        self.prior = nnx.Param(jnp.zeros((in_capsules, out_capsules), param_dtype))

    def __call__(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        del activation
        return self.routing.route_from(self._logits(votes), votes, softmax=softmax)

    def trace(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> RoutingTrace:
        """Routes one example, votes `[I, J, D]`, and keeps every iteration."""
        del activation
        return self.routing.trace_from(self._logits(votes), votes, softmax=softmax)

    def outcome(self, state: RoutingTrace) -> Routed:
        """What one iteration of a trace comes to."""
        return self.routing.outcome(state)

    def _logits(self, votes: jax.Array) -> jax.Array:
        if votes.shape[:2] != self.prior.shape:
            raise ValueError(
                f"a prior of shape {self.prior.shape} cannot route votes of shape {votes.shape}"
            )
        return self.prior[...].astype(accumulation_dtype(votes.dtype))


@dataclasses.dataclass(frozen=True)
class LearnedPrior:
    """`PriorRouting`, before it is known how many capsules it connects.

    Attributes:
        routing: what is done from the prior on.
    """

    routing: DynamicRouting = DynamicRouting()  # noqa: RUF009 (frozen)

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> PriorRouting:
        """Makes the routing, see `UnsizedRouting`."""
        return PriorRouting(
            sizes.in_capsules,
            sizes.out_capsules,
            routing=self.routing,
            param_dtype=param_dtype,
            rngs=rngs,
        )
