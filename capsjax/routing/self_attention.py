"""Self-attention routing (Mazzia, Salvetti and Chiaberge 2021)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax.capsules import (
    ExponentialSquash,
    SquashFunction,
    accumulation_dtype,
    norm,
    squash_from,
)
from capsjax.routing._base import Routed, Sizes, Softmax, softmax_over_out


class SelfAttentionTrace(NamedTuple):
    """What self-attention routing computes on one example, in `R = 1` iteration.

    All arrays are in `accumulation_dtype` of the votes' dtype.

    Attributes:
        a: `[R, I, J]`, the agreement of each vote with all votes for the same output capsule.
        c: `[R, I, J]`, its softmax, which the paper calls coupling coefficients.
        c_b: `[R, I, J]`, the same with the prior added: what the votes are multiplied by.
        s: `[R, J, D]`, the output capsules before squash.
        v: `[R, J, D]`, the output capsules.
    """

    a: jax.Array
    c: jax.Array
    c_b: jax.Array
    s: jax.Array
    v: jax.Array


class SelfAttentionRouting(nnx.Module):
    """Routing in one pass: the votes for an output capsule attend to each other.

    Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491 (Efficient-CapsNet), as in the authors'
    code. With the votes `u_hat_ij`:

    - `a_ij = sum_k u_hat_ij . u_hat_kj / sqrt(D)`, a row of the self-attention matrix summed up;
    - `c_ij`, the softmax of `a_ij` over the output capsules;
    - `s_j = sum_i (c_ij + b_ij) u_hat_ij`, with a learned prior `b`, and `v_j = squash(s_j)`.

    The prior is added after the softmax, not to the logits. So the coupling of an input capsule
    sums to one only as long as the prior is zero, and may become negative. The activation is the
    length of the pose, as in the paper, which is trained with the margin loss.

    Args:
        in_capsules: number of capsules below, `I`.
        out_capsules: number of capsules above, `J`.
        squash: of the output capsules `[J, D]`; see `squash_from`.
        param_dtype: dtype of the prior.
        rngs: source of the initial values; the prior is zero and draws none.
    """

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        *,
        squash: SquashFunction = ExponentialSquash(),  # noqa: B008 (frozen, has no state)
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        del rngs
        self.squash = squash_from(squash)
        self.prior = nnx.Param(jnp.zeros((in_capsules, out_capsules), param_dtype))

    def __call__(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        del activation  # a vector capsule's activation is in the length of its votes already
        return self.outcome(self._state(votes, softmax))

    def trace(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> SelfAttentionTrace:
        """Routes one example and keeps what it computes, arrays `[1, ...]`."""
        del activation
        return jax.tree.map(lambda x: x[None], self._state(votes, softmax))

    def outcome(self, state: SelfAttentionTrace) -> Routed:
        """What a trace comes to."""
        return Routed(pose=state.v, activation=norm(state.v), coupling=state.c_b)

    def _state(self, u_hat: jax.Array, softmax: Softmax) -> SelfAttentionTrace:
        if u_hat.shape[:2] != self.prior.shape:
            raise ValueError(
                f"a prior of shape {self.prior.shape} cannot route votes of shape {u_hat.shape}"
            )
        dtype = accumulation_dtype(u_hat.dtype)

        # The sum over k goes first: so the matrix [I, I] of each output capsule is never made.
        total = jnp.sum(u_hat, axis=0, dtype=dtype).astype(u_hat.dtype)
        a = jnp.einsum("ijd,jd->ij", u_hat, total, preferred_element_type=dtype)
        a = a / math.sqrt(u_hat.shape[-1])
        c = softmax(a)
        c_b = c + self.prior[...].astype(dtype)
        s = jnp.einsum("ij,ijd->jd", c_b.astype(u_hat.dtype), u_hat, preferred_element_type=dtype)
        return SelfAttentionTrace(a, c, c_b, s, self.squash(s))


@dataclasses.dataclass(frozen=True)
class SelfAttention:
    """`SelfAttentionRouting`, before it is known how many capsules it connects.

    Attributes:
        squash: of the output capsules `[J, D]`; see `squash_from`.

    Raises:
        ValueError: the squash is none.
    """

    squash: SquashFunction = ExponentialSquash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        """Checks the values."""
        object.__setattr__(self, "squash", squash_from(self.squash))

    def build(
        self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> SelfAttentionRouting:
        """Makes the routing, see `UnsizedRouting`."""
        return SelfAttentionRouting(
            sizes.in_capsules,
            sizes.out_capsules,
            squash=self.squash,
            param_dtype=param_dtype,
            rngs=rngs,
        )
