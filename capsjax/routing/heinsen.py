"""Routing by what it is worth to use an input capsule (Heinsen 2019)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.routing._base import Index, Routed, RoutingInputs, SizedRouting, Sizes, Softmax


class HeinsenTrace(NamedTuple):
    """All `N` iterations of `Heinsen` routing on one example, in the symbols of the author's code.

    Attributes:
        R: `[N, I, J]`, the share of each input capsule that each output capsule gets.
        D_use: `[N, I, J]`, the data of an input capsule that an output capsule uses.
        D_ign: `[N, I, J]`, the data of an input capsule that it ignores.
        a_out: `[N, J]`, the logits of the output capsules' activations.
        mu_out: `[N, J, D]`, the means of the votes: the output capsules.
        sigma_squared_out: `[N, J, D]`, the variances of the votes.
    """

    R: jax.Array
    D_use: jax.Array
    D_ign: jax.Array
    a_out: jax.Array
    mu_out: jax.Array
    sigma_squared_out: jax.Array


@dataclasses.dataclass(frozen=True)
class Heinsen:
    """Expectation maximisation whose capsules weigh what they use against what they ignore.

    Heinsen 2019, "An Algorithm for Routing Capsules in All Domains", arXiv:1911.00792. Each output
    capsule is a mean of the votes, weighted by their probability. Whether it is there is decided
    apart from that: an output capsule uses a share of the data of each input capsule, which has a
    benefit `beta_use` a unit, and ignores the rest, which has a cost `beta_ign`. Gradients flow
    through every iteration.

    In the paper an activation is the logistic function of a score. Here the input's are given
    between 0 and 1, so they are what the paper calls `f(a_inp)`, and the output's are `f(a_out)`;
    the scores are in the trace. The votes, which the paper makes in the routing, are the layer's.
    The coupling is `R`, which sums to one over the output capsules.

    The author's code adds a bias to each vote; a layer here has the matrices alone.

    The defaults are those of the author's code.

    Attributes:
        iterations: how often the outputs are computed, 3 in the paper; at least 1.
        model: how likely a vote is in an output capsule: by a `"gaussian"` with a variance for each
            component, or as in `"soft_k_means"`, by its squared distance from the mean alone.
        single_beta: whether to use a unit of data is worth what it costs to ignore it: one
            parameter `beta_use` stands for both.
        shared: whether all input capsules have the same betas, `[1, J]`. The author's networks have
            it in the layer whose number of input capsules is not fixed.
        epsilon: added to the data that an output capsule uses, by which its votes are divided, and
            to their variance; above 0, at most 1.

    Raises:
        ValueError: a value is not one of these.
    """

    iterations: int = 3
    model: Literal["gaussian", "soft_k_means"] = "gaussian"
    single_beta: bool = False
    shared: bool = False
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _checks.positive_integer("iterations of Heinsen's routing", self.iterations)
        _checks.one_of("model of Heinsen's routing", self.model, ("gaussian", "soft_k_means"))
        _checks.fields(self, _checks.boolean, "single_beta", "shared")
        if _checks.fraction("epsilon of Heinsen's routing", self.epsilon) == 0:
            raise ValueError("epsilon of Heinsen's routing is divided by: it must be above 0")

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> "_Heinsen":
        return _Heinsen(self, sizes, param_dtype=param_dtype, rngs=rngs)


class _Prepared(NamedTuple):
    V: jax.Array
    f_a_inp: jax.Array
    beta_use: jax.Array
    beta_ign: jax.Array
    softmax: Softmax


class _Heinsen(SizedRouting):
    settings: Heinsen

    def make_parameters(self, sizes: Sizes, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        own = ("out_capsules",) if self.settings.shared else ("in_capsules", "out_capsules")
        self.depends_on = own
        shape = (1 if self.settings.shared else sizes.in_capsules, sizes.out_capsules)
        self.beta_use = nnx.Param(jnp.zeros(shape, param_dtype))
        self.beta_ign = (
            None if self.settings.single_beta else nnx.Param(jnp.zeros(shape, param_dtype))
        )

    def prepare(self, inputs: RoutingInputs) -> _Prepared:
        # Weights rounded to bfloat16 would not sum to one, and the mean be off by more than votes
        # that agree vary.
        votes, activation, _, softmax = inputs.wide()
        beta_use = self.beta_use[...].astype(votes.dtype)
        beta_ign = beta_use if self.beta_ign is None else self.beta_ign[...].astype(votes.dtype)
        return _Prepared(votes, activation[:, None], beta_use, beta_ign, softmax)

    def first(self, inputs: _Prepared) -> HeinsenTrace:
        V = inputs.V
        return self._d_and_m_step(inputs, inputs.softmax(jnp.zeros(V.shape[:2], V.dtype)))

    def again(self, inputs: _Prepared, state: HeinsenTrace, index: Index) -> HeinsenTrace:
        return self._d_and_m_step(inputs, inputs.softmax(self._e_step(inputs.V, state)))

    def outcome(self, state: HeinsenTrace) -> Routed:
        return Routed(pose=state.mu_out, activation=jax.nn.sigmoid(state.a_out), coupling=state.R)

    def _e_step(self, V: jax.Array, state: HeinsenTrace) -> jax.Array:
        """The logits `[I, J]` of the shares: output capsules that are there attract votes."""
        deviation = V - state.mu_out[None]
        if self.settings.model == "gaussian":
            # What all output capsules have in common is left out of the logarithm.
            sigma = jnp.sqrt(state.sigma_squared_out)
            exponent = jnp.sum(jnp.square(deviation / sigma[None]), axis=-1) / 2
            log_p = -exponent - jnp.sum(jnp.log(sigma), axis=-1)[None]
        else:
            log_p = -jnp.sum(jnp.square(deviation), axis=-1)
        return jax.nn.log_sigmoid(state.a_out)[None] + log_p

    def _d_and_m_step(self, inputs: _Prepared, R: jax.Array) -> HeinsenTrace:
        """The data that is used and that is not, and scores, means and variances of the outputs."""
        D_use = inputs.f_a_inp * R
        D_ign = inputs.f_a_inp - D_use
        a_out = jnp.sum(inputs.beta_use * D_use - inputs.beta_ign * D_ign, axis=0)
        weight = D_use / (jnp.sum(D_use, axis=0) + self.settings.epsilon)[None]
        mu_out = jnp.einsum("ij,ijd->jd", weight, inputs.V)
        squared = jnp.square(inputs.V - mu_out[None])
        variance = jnp.sum(weight[:, :, None] * squared, axis=0)
        return HeinsenTrace(R, D_use, D_ign, a_out, mu_out, variance + self.settings.epsilon)
