"""Inverted dot-product attention routing (Tsai, Srivastava, Goh and Salakhutdinov 2020)."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import accumulation_dtype
from capsjax.routing._base import Routed, Sizes, Softmax, softmax_over_out
from capsjax.routing.iterative import all_of, last_of


class InvertedAttentionTrace(NamedTuple):
    """Every iteration of inverted attention on one example, in the symbols of the paper.

    `R` iterations route `I` input capsules to `J` output capsules of dimension `D`. All arrays are
    in `accumulation_dtype` of the votes' dtype.

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
class InvertedAttention:
    """`InvertedAttentionRouting`, before it is known how many capsules it connects.

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
    """

    iterations: int = 2
    presence: bool = True
    epsilon: float = 1e-10
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Checks the values."""
        _checks.positive_integer("iterations of inverted attention", self.iterations)
        _checks.boolean("presence", self.presence)
        _checks.fraction("epsilon of inverted attention", self.epsilon)
        if _checks.fraction("layer_norm_epsilon", self.layer_norm_epsilon) == 0:
            raise ValueError(
                "layer_norm_epsilon must be above 0: a pose may have no variance at all"
            )

    def build(
        self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> "InvertedAttentionRouting":
        """Makes the routing, see `UnsizedRouting`."""
        return InvertedAttentionRouting(
            sizes.out_dim, options=self, param_dtype=param_dtype, rngs=rngs
        )


class InvertedAttentionRouting(nnx.Module):
    """Routing in which the capsules above compete for the attention of those below.

    Procedure 1 of Tsai, Srivastava, Goh and Salakhutdinov 2020, arXiv:2002.04764, with the scale of
    the authors' code. The poses start from zero, with which all votes agree alike. Gradients flow
    through every iteration.

    A call routes one layer until it is done (sequential routing). The paper's networks route all
    layers at once (concurrent routing): `first` in one layer after the other, then `again` in all
    of them, with votes of the poses below as they are by then, and so on.

    Capsules of the paper have no activation. Its class probabilities are a softmax of a logit for
    each class, which one linear map makes of the pose of any class. The activation here is the
    sigmoid of that logit: it orders the classes as the softmax does, and the margin loss takes it
    for a length. For the paper's cross-entropy, `logits` has them as they are.

    Args:
        out_dim: dimension of the poses above, `D`.
        options: what is computed.
        param_dtype: dtype of the parameters: `scale` and `bias` `[D]` of the normalisation, and
            with `presence` those of the linear map, `presence_weight` `[D]` and `presence_bias`
            `[1]`.
        rngs: source of the initial values: the linear map's are uniform up to `1 / sqrt(D)`.
    """

    def __init__(
        self,
        out_dim: int,
        *,
        options: InvertedAttention = InvertedAttention(),
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.options = options
        self.scale = nnx.Param(jnp.ones(out_dim, param_dtype))
        self.bias = nnx.Param(jnp.zeros(out_dim, param_dtype))
        if options.presence:
            bound = 1 / math.sqrt(out_dim)

            def drawn(size: int) -> nnx.Param:
                key = rngs.params()
                return nnx.Param(jax.random.uniform(key, (size,), param_dtype, -bound, bound))

            self.presence_weight = drawn(out_dim)
            self.presence_bias = drawn(1)

    @property
    def iterations(self) -> int:
        """How often the poses are computed."""
        return self.options.iterations

    def __call__(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        return self.outcome(last_of(*self._steps(votes, activation, softmax), self.iterations))

    def trace(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> InvertedAttentionTrace:
        """Routes one example and keeps every iteration."""
        return all_of(*self._steps(votes, activation, softmax), self.iterations)

    def outcome(self, state: InvertedAttentionTrace) -> Routed:
        """What one iteration of a trace comes to."""
        return Routed(pose=state.p, activation=state.presence, coupling=state.r)

    def first(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> InvertedAttentionTrace:
        """The first iteration: votes `[I, J, D]`, activation `[I]` (not used) -> its state."""
        del activation
        a = jnp.zeros(votes.shape[:2], accumulation_dtype(votes.dtype))
        return self._state(a, softmax(a), votes)

    def again(
        self,
        state: InvertedAttentionTrace,
        votes: jax.Array,
        activation: jax.Array,
        *,
        softmax: Softmax = softmax_over_out,
    ) -> InvertedAttentionTrace:
        """One more iteration: the state of the one before, and votes that may be others now."""
        del activation
        # Equation 2 and line 3, over sqrt(D).
        p = state.p.astype(votes.dtype)
        a = jnp.einsum("jd,ijd->ij", p, votes, preferred_element_type=state.p.dtype)
        a = a / math.sqrt(votes.shape[-1])
        # Equation 3 and line 4. The authors divide by the sum, which the softmax has made one.
        r = softmax(a) / (1 + self.options.epsilon)
        return self._state(a, r, votes)

    def logits(self, pose: jax.Array) -> jax.Array:
        """Poses `[J, D]` -> what the probability of each class is made of, `[J]`.

        Raises:
            ValueError: the routing was made without `presence`.
        """
        if not self.options.presence:
            raise ValueError("inverted attention with presence=False has no logits")
        weight, bias = (
            parameter[...].astype(pose.dtype)
            for parameter in (self.presence_weight, self.presence_bias)
        )
        return jnp.einsum("jd,d->j", pose, weight) + bias

    def _steps(
        self, votes: jax.Array, activation: jax.Array, softmax: Softmax
    ) -> tuple[
        InvertedAttentionTrace,
        Callable[[InvertedAttentionTrace, jax.Array], InvertedAttentionTrace],
    ]:
        def again(state: InvertedAttentionTrace, _index: jax.Array) -> InvertedAttentionTrace:
            return self.again(state, votes, activation, softmax=softmax)

        return self.first(votes, activation, softmax=softmax), again

    def _state(self, a: jax.Array, r: jax.Array, votes: jax.Array) -> InvertedAttentionTrace:
        """Lines 5 and 6: the poses of the routing coefficients."""
        s = jnp.einsum("ij,ijd->jd", r.astype(votes.dtype), votes, preferred_element_type=a.dtype)
        p = self._normalised(s)
        if self.options.presence:
            presence = jax.nn.sigmoid(self.logits(p))
        else:
            presence = jnp.ones(len(p), p.dtype)
        return InvertedAttentionTrace(a, r, s, p, presence)

    def _normalised(self, s: jax.Array) -> jax.Array:
        """Layer normalisation of each pose (Ba, Kiros and Hinton 2016, arXiv:1607.06450)."""
        if s.shape[-1:] != self.scale.shape:
            raise ValueError(
                f"this routing makes poses of dimension {self.scale.shape[0]}, not {s.shape[-1]}"
            )
        if s.shape[-1] == 1:
            return s  # as in the authors' code: nothing would be left of it
        centred = s - jnp.mean(s, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.options.layer_norm_epsilon)
        scale, bias = (x[...].astype(s.dtype) for x in (self.scale, self.bias))
        return normal * scale[None] + bias[None]
