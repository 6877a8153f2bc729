"""Routing by how well the outputs predict the inputs (Heinsen 2022)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from capsjax._checks import PositiveFraction, PositiveInt
from capsjax.capsules import accumulation_dtype
from capsjax.ops._arrays import product
from capsjax.routing._base import Index, LearnedRouting, Parameters, Routed, Sizes, normalized
from capsjax.routing._inputs import RoutingInputs


class Heinsen2022Trace(NamedTuple):
    """All `N` iterations of `Heinsen2022` on one example, in the symbols of the author's code.

    Attributes:
        x_pred: `[N, J, K]`, the inputs as the outputs so far predict them; zero at first.
        S: `[N, I, J]`, how similar each input capsule is to what is predicted; zero at first.
        R: `[N, I, J]`, the share of each input capsule that each output capsule gets.
        D_use: `[N, I, J]`, the data of an input capsule that an output capsule uses.
        D_ign: `[N, I, J]`, the data of an input capsule that it ignores.
        phi: `[N, I, J]`, the credit that an input capsule gets for an output capsule, of any sign.
        x_out: `[N, J, D]`, the output capsules before they are normalised.
        x_norm: `[N, J, D]`, the output capsules, normalised, or as they are without `normalize`.
        a_out: `[N, J]`, the logits of the output capsules' activations.
    """

    x_pred: jax.Array
    S: jax.Array
    R: jax.Array
    D_use: jax.Array
    D_ign: jax.Array
    phi: jax.Array
    x_out: jax.Array
    x_norm: jax.Array
    a_out: jax.Array


@dataclasses.dataclass(frozen=True)
class Heinsen2022(LearnedRouting):
    """Each output capsule predicts the input capsules, and gets a share of those it predicts well.

    Heinsen 2022, "An Algorithm for Routing Vectors in Sequences", arXiv:2211.11754, whose four
    networks are found here as follows. `F`, which proposes outputs, is the layer's: its votes.
    `G`, which predicts inputs from outputs, is a linear map into the space of the inputs, the same
    for all output capsules, whose components each of them scales and shifts. `S`, which compares
    inputs with predictions, is the logarithm of the logistic function of their scalar product,
    scaled and shifted. Both are those of the author's code, as is all that follows. Gradients flow
    through every iteration.

    `A`, which scores the activations of vectors that come without, is a scalar product with the
    vector. In the paper a routing begins with it, on its inputs; here capsules come with their
    activations, from 0 to 1, and `A` is at the end: the output's activations are those that a
    routing of the output capsules would begin with. The paper's classes are vectors of one
    component, which is their score; `A` is the score of classes that are longer vectors.

    Output capsules are sums of the votes, each weighted by its credit `phi`: the benefit `beta_use`
    of the data that is used, less the cost `beta_ign` of that which is ignored. The credits may be
    negative and sum to nothing in particular; the coupling of the result is the shares `R`, which
    sum to one over the output capsules, and the credits are in the trace.

    The author's code makes the votes of its `F` with biases and scales them, and has `F` factorised
    so that it is small for many capsules; a layer here has whole matrices and no biases.

    The defaults are those of the author's code.

    Attributes:
        iterations: how often the outputs are computed, 2 in the author's code; at least 1. With
            one, nothing is predicted, and the parameters of the prediction are without effect.
        normalize: whether the components of each output capsule are given the mean 0 and the
            variance 1 at the end, as they always are where they predict the inputs. A capsule of
            one component is left as it is.
        epsilon: added to that variance where it is divided by; above 0, at most 1.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.Heinsen2022()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("pose", "softmax")

    iterations: PositiveInt = 2
    normalize: bool = True
    epsilon: PositiveFraction = 1e-5

    def parameters(self, sizes: Sizes) -> Parameters:
        I, K, J, D = sizes  # noqa: E741
        normal = nnx.initializers.normal
        return {
            "W_G1": ((D, K), normal(1 / math.sqrt(D))),
            "W_G2": ((J, K), normal(1)),
            "B_G2": ((J, K), 0),
            "W_S": ((I, J), normal(1 / math.sqrt(K))),
            "B_S": ((I, J), 0),
            "beta_use": ((I, J), normal(1)),
            "beta_ign": ((I, J), normal(1)),
            "W_A": ((J, D), normal(2 / math.sqrt(D))),
            "B_A": ((J,), 0),
        }

    def prepare(self, inputs: RoutingInputs) -> RoutingInputs:
        dtype = accumulation_dtype(inputs.votes.dtype)
        return inputs._replace(
            activation=inputs.activation.astype(dtype)[:, None], pose=inputs.pose.astype(dtype)
        )

    def first(self, inputs: RoutingInputs) -> Heinsen2022Trace:
        (I, J, _), K, dtype = inputs.votes.shape, inputs.pose.shape[1], inputs.pose.dtype  # noqa: E741
        return self._d_and_m_step(inputs, jnp.zeros((J, K), dtype), jnp.zeros((I, J), dtype))

    def again(
        self, inputs: RoutingInputs, state: Heinsen2022Trace, index: Index
    ) -> Heinsen2022Trace:
        return self._d_and_m_step(inputs, *self._predict(inputs, state.x_out))

    def outcome(self, state: Heinsen2022Trace) -> Routed:
        return Routed(pose=state.x_norm, activation=jax.nn.sigmoid(state.a_out), coupling=state.R)

    def _predict(self, inputs: RoutingInputs, x_out: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The inputs `[J, K]` that the outputs predict, and how similar `[I, J]` they are."""
        p = inputs.parameters
        x_pred = (normalized(x_out, self.epsilon) @ p["W_G1"]) * p["W_G2"] + p["B_G2"]
        return x_pred, jax.nn.log_sigmoid((inputs.pose @ x_pred.T) * p["W_S"] + p["B_S"])

    def _d_and_m_step(
        self, inputs: RoutingInputs, x_pred: jax.Array, S: jax.Array
    ) -> Heinsen2022Trace:
        """The data that is used and that is not, credits, and the output capsules they make."""
        V, f_a_inp, R, p = inputs.votes, inputs.activation, inputs.softmax(S), inputs.parameters
        D_use = f_a_inp * R
        D_ign = f_a_inp - D_use
        phi = p["beta_use"] * D_use - p["beta_ign"] * D_ign
        x_out = product("ij,ijd->jd", phi.astype(V.dtype), V)
        x_norm = normalized(x_out, self.epsilon) if self.normalize else x_out
        score = jnp.sum(x_norm * p["W_A"], axis=-1)
        a_out = score / math.sqrt(len(x_norm)) + p["B_A"]
        return Heinsen2022Trace(x_pred, S, R, D_use, D_ign, phi, x_out, x_norm, a_out)
