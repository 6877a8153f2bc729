"""Self-attention routing (Mazzia, Salvetti and Chiaberge 2021)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax.capsules import ExponentialSquash, SquashFunction, norm
from capsjax.ops._arrays import product
from capsjax.routing._base import LearnedRouting, Parameters, Routed, Sizes
from capsjax.routing._inputs import RoutingInputs


class SelfAttentionTrace(NamedTuple):
    """What self-attention routing computes on one example, in `R = 1` iteration.

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


@dataclasses.dataclass(frozen=True)
class SelfAttention(LearnedRouting):
    """Routing in one pass: the votes for an output capsule attend to each other.

    Mazzia, Salvetti and Chiaberge 2021, arXiv:2101.12491 (Efficient-CapsNet), as in the authors'
    code. With the votes `u_hat_ij`:

    - `a_ij = sum_k u_hat_ij . u_hat_kj / sqrt(D)`, a row of the self-attention matrix summed up;
    - `c_ij`, the softmax of `a_ij` over the output capsules;
    - `s_j = sum_i (c_ij + b_ij) u_hat_ij`, with a learned prior `b`, and `v_j = squash(s_j)`.

    The prior is added after the softmax, not to the logits. So the coupling of an input capsule
    sums to one only as long as the prior is zero, and may become negative. The activation is the
    length of the pose, as in the paper, which is trained with the margin loss.

    Attributes:
        squash: of the output capsules `[J, D]`; see `squash_from`.

    Raises:
        ValueError: the squash is none.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.SelfAttention()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations = 1

    squash: SquashFunction = ExponentialSquash()  # noqa: RUF009 (frozen)

    def parameters(self, sizes: Sizes) -> Parameters:
        return {"prior": ((sizes.in_capsules, sizes.out_capsules), 0)}

    def first(self, inputs: RoutingInputs) -> SelfAttentionTrace:
        u_hat, prior = inputs.votes, inputs.parameters["prior"]
        if u_hat.dtype == jnp.float16:  # the sum may be more than it holds
            u_hat = u_hat.astype(prior.dtype)
        # The sum over k goes first: so the matrix [I, I] of each output capsule is never made.
        # It is divided, and not `a`: in one program with the softmax, the quotients are rounded in
        # the largest logit alone, and where they are large the exponential would be infinite.
        total = jnp.sum(u_hat, axis=0, dtype=prior.dtype) / math.sqrt(u_hat.shape[-1])
        a = product("ijd,jd->ij", u_hat, total.astype(u_hat.dtype))
        c = inputs.softmax(a)
        c_b = inputs.present(c + prior)
        s = product("ij,ijd->jd", c_b.astype(u_hat.dtype), u_hat)
        return SelfAttentionTrace(a, c, c_b, s, self.squash(s))

    def outcome(self, state: SelfAttentionTrace) -> Routed:
        return Routed(pose=state.v, activation=norm(state.v), coupling=state.c_b)
