"""Routing by what it is worth to use an input capsule (Heinsen 2019)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from capsjax._checks import PositiveFraction, PositiveInt
from capsjax.routing._base import Index, LearnedRouting, Parameters, Routed, Sizes
from capsjax.routing._inputs import RoutingInputs


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
class Heinsen(LearnedRouting):
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

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.Heinsen()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations: PositiveInt = 3
    model: Literal["gaussian", "soft_k_means"] = "gaussian"
    single_beta: bool = False
    shared: bool = False
    epsilon: PositiveFraction = 1e-5

    def parameters(self, sizes: Sizes) -> Parameters:
        shape = (1 if self.shared else sizes.in_capsules, sizes.out_capsules)
        names = ("beta_use",) if self.single_beta else ("beta_use", "beta_ign")
        return dict.fromkeys(names, (shape, 0))

    def prepare(self, inputs: RoutingInputs) -> RoutingInputs:
        # Weights rounded to bfloat16 would not sum to one, and the mean be off by more than votes
        # that agree vary.
        return inputs.wide()

    def first(self, inputs: RoutingInputs) -> HeinsenTrace:
        V = inputs.votes
        return self._d_and_m_step(inputs, inputs.softmax(jnp.zeros(V.shape[:2], V.dtype)))

    def again(self, inputs: RoutingInputs, state: HeinsenTrace, index: Index) -> HeinsenTrace:
        return self._d_and_m_step(inputs, inputs.softmax(self._e_step(inputs.votes, state)))

    def outcome(self, state: HeinsenTrace) -> Routed:
        return Routed(pose=state.mu_out, activation=jax.nn.sigmoid(state.a_out), coupling=state.R)

    def _e_step(self, V: jax.Array, state: HeinsenTrace) -> jax.Array:
        """The logits `[I, J]` of the shares: output capsules that are there attract votes."""
        deviation = V - state.mu_out[None]
        if self.model == "gaussian":
            # What all output capsules have in common is left out of the logarithm.
            sigma = jnp.sqrt(state.sigma_squared_out)
            exponent = jnp.sum(jnp.square(deviation / sigma[None]), axis=-1) / 2
            log_p = -exponent - jnp.sum(jnp.log(sigma), axis=-1)[None]
        else:
            log_p = -jnp.sum(jnp.square(deviation), axis=-1)
        return jax.nn.log_sigmoid(state.a_out)[None] + log_p

    def _d_and_m_step(self, inputs: RoutingInputs, R: jax.Array) -> HeinsenTrace:
        """The data that is used and that is not, and scores, means and variances of the outputs."""
        V, f_a_inp = inputs.votes, inputs.activation[:, None]
        beta_use = inputs.parameters["beta_use"]
        beta_ign = beta_use if self.single_beta else inputs.parameters["beta_ign"]
        D_use = f_a_inp * R
        D_ign = f_a_inp - D_use
        a_out = jnp.sum(beta_use * D_use - beta_ign * D_ign, axis=0)
        weight = D_use / (jnp.sum(D_use, axis=0) + self.epsilon)[None]
        mu_out = jnp.einsum("ij,ijd->jd", weight, V)
        squared = jnp.square(V - mu_out[None])
        variance = jnp.sum(weight[:, :, None] * squared, axis=0)
        return HeinsenTrace(R, D_use, D_ign, a_out, mu_out, variance + self.epsilon)
