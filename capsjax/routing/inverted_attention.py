"""Inverted dot-product attention routing (Tsai, Srivastava, Goh and Salakhutdinov 2020)."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax._checks import Fraction, PositiveFraction, PositiveInt
from capsjax.capsules import accumulation_dtype
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, LearnedRouting, Parameters, Routed, Sizes, normalized
from capsjax.routing._inputs import RoutingInputs


class InvertedAttentionTrace(NamedTuple):
    """Every iteration of inverted attention on one example, in the symbols of the paper.

    Attributes:
        a: `[R, I, J]`, the agreement of votes with the poses of the iteration before, over
            `sqrt(D)`.
        r: `[R, I, J]`, the routing coefficients.
        s: `[R, J, D]`, the sums of the votes, before they are normalised.
        p: `[R, J, D]`, the poses.
        presence: `[R, J]`, the activations.
    """

    a: jax.Array
    r: jax.Array
    s: jax.Array
    p: jax.Array
    presence: jax.Array


@dataclasses.dataclass(frozen=True)
class InvertedAttention(LearnedRouting):
    """Routing in which the capsules above compete for the attention of those below.

    Procedure 1 of Tsai, Srivastava, Goh and Salakhutdinov 2020, arXiv:2002.04764, with the scale of
    the authors' code. The poses start from zero, with which all votes agree alike. Gradients flow
    through every iteration.

    A call routes one layer until it is done (sequential routing). The paper's networks route all
    layers at once (concurrent routing): the first iteration in one layer after the other, then one
    in all of them, with votes of the poses below as they are by then, and so on.

    Capsules of the paper have no activation. Its class probabilities are a softmax of a logit for
    each class, which one linear map makes of the pose of any class. The activation here is the
    sigmoid of that logit: it orders the classes as the softmax does, and the margin loss takes it
    for a length. For the paper's cross-entropy, the built routing's `logits` has them as they are.

    The parameters are `scale` and `bias` `[D]` of the normalisation and, with `presence`, those of
    the linear map, `presence_weight` `[D]` and `presence_bias` `[1]`, drawn uniform up to
    `1 / sqrt(D)`.

    The defaults are those of the authors' code, with the iterations of its best results.

    Attributes:
        iterations: how often the poses are computed, 2 for the published accuracy; at least 1. The
            first time knows no pose to agree with: one iteration is no routing.
        presence: whether a capsule's activation is its class's probability, as in the last layer of
            the paper's network; else it is one, as in the layers below, which have none.
        epsilon: what is added to the sum of an input capsule's coefficients, which is one, before
            they are divided by it; not in the first iteration. From 0 to 1.
        layer_norm_epsilon: what is added to the variance of a pose; above 0, to 1.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.InvertedAttention()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax", "vote_sum")

    iterations: PositiveInt = 2
    presence: bool = True
    epsilon: Fraction = 1e-10
    layer_norm_epsilon: PositiveFraction = 1e-5

    def parameters(self, sizes: Sizes) -> Parameters:
        dim = (sizes.out_dim,)
        normalisation: Parameters = {"scale": (dim, 1), "bias": (dim, 0)}
        bound = 1 / math.sqrt(sizes.out_dim)
        drawn = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        if not self.presence:
            return normalisation
        return normalisation | {"presence_weight": (dim, drawn), "presence_bias": ((1,), drawn)}

    def first(self, inputs: RoutingInputs) -> InvertedAttentionTrace:
        a = jnp.zeros(inputs.votes.shape[:2], accumulation_dtype(inputs.votes.dtype))
        r = inputs.softmax(a)
        return self._state(inputs, a, r, inputs.shared_equally(r))

    def again(
        self, inputs: RoutingInputs, state: InvertedAttentionTrace, index: Index
    ) -> InvertedAttentionTrace:
        votes = inputs.votes
        # Equation 2 and line 3, over sqrt(D). Divided are the poses, see `SelfAttention`.
        p = state.p / math.sqrt(votes.shape[-1])
        a = product("jd,ijd->ij", p.astype(votes.dtype), votes)
        # Equation 3 and line 4. The authors divide by the sum, which the softmax has made one.
        r = inputs.softmax(a) / (1 + self.epsilon)
        return self._state(inputs, a, r, product("ij,ijd->jd", r.astype(votes.dtype), votes))

    def outcome(self, state: InvertedAttentionTrace) -> Routed:
        return Routed(pose=state.p, activation=state.presence, coupling=state.r)

    def logits(self, pose: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array:
        if not self.presence:
            raise ValueError("inverted attention with presence=False has no logits")
        weight, bias = parameters["presence_weight"], parameters["presence_bias"]
        return jnp.einsum("jd,d->j", pose, weight) + bias

    def _state(
        self, inputs: RoutingInputs, a: jax.Array, r: jax.Array, s: jax.Array
    ) -> InvertedAttentionTrace:
        """Line 6, of the routing coefficients `r` and what line 5 makes of them."""
        parameters = inputs.parameters
        # Layer normalisation of each pose (Ba, Kiros and Hinton 2016, arXiv:1607.06450).
        p = normalized(s, self.layer_norm_epsilon)
        if s.shape[-1] > 1:
            p = p * parameters["scale"][None] + parameters["bias"][None]
        if self.presence:
            presence = jax.nn.sigmoid(self.logits(p, parameters))
        else:
            presence = jnp.ones(len(p), p.dtype)
        return InvertedAttentionTrace(a, r, s, p, presence)
