"""No routing: every input capsule is shared out equally, or at random once and for all."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from capsjax._checks import PositiveNumber
from capsjax.capsules import Squash, SquashFunction, accumulation_dtype
from capsjax.ops._arrays import product
from capsjax.routing._base import IterativeRouting, LearnedRouting, Parameters, Sizes
from capsjax.routing._inputs import RoutingInputs


class UniformTrace(NamedTuple):
    """What routing without routing computes on one example, in `R = 1` iteration.

    Attributes:
        c: `[R, I, J]`, the coupling coefficients.
        s: `[R, J, D]`, the output capsules before squash.
        v: `[R, J, D]`, the output capsules.
    """

    c: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class Uniform(IterativeRouting):
    """The control of every study of routing: all votes count alike.

    `s_j = 1/J sum_i u_hat_ij`, `v_j = squash(s_j)`. Gu and Tresp 2020, arXiv:1911.07968, sections 3
    and 4: without routing a capsule network is no less accurate, and with transformation matrices
    that all input capsules share (`DenseCaps(..., shared=True)`) more robust to affine
    transformations. It is the first iteration of dynamic routing, and has no other.

    Attributes:
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: the squash is none.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.Uniform(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    iterations = 1
    needs = tuple[str, ...](("softmax", "vote_sum"))

    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def first(self, inputs: RoutingInputs) -> UniformTrace:
        dtype = accumulation_dtype(inputs.votes.dtype)
        c = inputs.softmax(jnp.zeros(inputs.votes.shape[:2], dtype))
        s = inputs.shared_equally(c)
        return UniformTrace(c, s, self.squash(s))


@dataclasses.dataclass(frozen=True)
class Random(Uniform, LearnedRouting):
    """The other control: coupling that is drawn with the initial values, and never learned.

    `c_i = softmax(b_i)`, `s_j = sum_i c_ij u_hat_ij`, `v_j = squash(s_j)`, the logits `b [I, J]`
    (`drawn`) from a normal distribution, the same for every example. They are a parameter, so that
    a checkpoint has them, but no gradient reaches them; weight decay would shrink them. Paik, Kwak
    and Kim 2019, arXiv:1907.13327, hold routings against connections that are uniform or random;
    how theirs were drawn was not at hand.

    Attributes:
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.
        deviation: of the logits, above 0. With 1, the largest of ten shares is about 0.3.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.Random()
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6))))
        >>> capsules.pose.shape, coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    deviation: PositiveNumber = 1.0

    def parameters(self, sizes: Sizes) -> Parameters:
        init = nnx.initializers.normal(self.deviation)
        return {"drawn": ((sizes.in_capsules, sizes.out_capsules), init)}

    def first(self, inputs: RoutingInputs) -> UniformTrace:
        c = inputs.softmax(lax.stop_gradient(inputs.parameters["drawn"]))
        s = product("ij,ijd->jd", c.astype(inputs.votes.dtype), inputs.votes)
        return UniformTrace(c, s, self.squash(s))
