"""Self-routing (Hahn, Pyeon and Kim 2019): each capsule decides by itself where it goes."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax._checks import Fraction
from capsjax.ops._arrays import product
from capsjax.routing._base import LearnedRouting, Parameters, Routed, Sizes
from capsjax.routing._inputs import RoutingInputs


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
class SelfRouting(LearnedRouting):
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

    Attributes:
        epsilon: from 0 to 1; a sum of activations that is not above it counts as none. The paper
            divides by any.

    Raises:
        ValueError: it is not.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.SelfRouting()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations = 1
    needs = ("pose", "softmax")

    epsilon: Fraction = 1e-12

    def parameters(self, sizes: Sizes) -> Parameters:
        n_in, in_dim, n_out, _ = sizes
        return {"kernel": ((n_in, n_out, in_dim), 0), "bias": ((n_in, n_out), 0)}

    def first(self, inputs: RoutingInputs) -> SelfRoutingTrace:
        u_hat, a_in, u_in, softmax, parameters = inputs[:5]
        W, b = parameters["kernel"], parameters["bias"]
        a_in = a_in.astype(W.dtype)

        logits = jnp.einsum("ijk,ik->ij", W, u_in.astype(W.dtype)) + b
        c = softmax(logits)
        routed = c * a_in[:, None]
        mass = jnp.sum(routed, axis=0)
        a = self._ratio(mass, jnp.sum(a_in))
        share = self._ratio(routed, mass[None])
        u = product("ij,ijd->jd", share.astype(u_hat.dtype), u_hat)
        return SelfRoutingTrace(logits, c, a, u)

    def outcome(self, state: SelfRoutingTrace) -> Routed:
        return Routed(pose=state.u, activation=state.a, coupling=state.c)

    def _ratio(self, part: jax.Array, whole: jax.Array) -> jax.Array:
        is_some = whole > self.epsilon
        return jnp.where(is_some, part / jnp.where(is_some, whole, 1), 0)
