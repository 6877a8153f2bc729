"""k-means routing (Ren and Lu 2018)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax._checks import PositiveInt
from capsjax.capsules import Squash, SquashFunction, norm
from capsjax.routing._base import Index, IterativeRouting
from capsjax.routing._inputs import RoutingInputs, Softmax


class KMeansTrace(NamedTuple):
    """Every iteration of k-means routing on one example.

    Attributes:
        b: `[R, I, J]`, how similar the votes are to the centres of the iteration before.
        c: `[R, I, J]`, the coupling coefficients.
        s: `[R, J, D]`, the centres, which nothing squashes yet.
        v: `[R, J, D]`, the output capsules if this is the last iteration.
    """

    b: jax.Array
    c: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class KMeans(IterativeRouting):
    """Output capsules as centres of clusters of votes.

    Ren and Lu 2018, "Compositional coding capsule network with k-means routing for text
    classification", arXiv:1810.09177. Each input capsule is shared out among the output capsules by
    how similar its votes are to their centres, softly, and each centre becomes the sum of its
    shares. Unlike those of dynamic routing, the logits do not add up over the iterations, and only
    the last centres are squashed. The centres start as sums of all votes, each with a weight of
    `1 / J`. The steps are those of the first author's code, `capsule_layer` of leftthomas; the
    paper has not been compared with it line by line.

    Attributes:
        iterations: how often votes are assigned, 3 in the code; at least 1.
        similarity: of a vote and a centre: the scalar product of the vote with the centre's
            direction, `"dot"`, or with both directions, `"cosine"`.
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.KMeans(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """

    needs = ("softmax",)

    iterations: PositiveInt = 3
    similarity: Literal["dot", "cosine"] = "dot"
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def prepare(self, inputs: RoutingInputs) -> "_Prepared":
        """The votes, and what is compared with the directions of the centres."""
        u_hat = inputs.wide().votes
        compared = _direction(u_hat) if self.similarity == "cosine" else u_hat
        return _Prepared(u_hat, compared, inputs.softmax)

    def first(self, inputs: "_Prepared") -> KMeansTrace:
        start = self._centres(inputs, jnp.zeros(inputs.u_hat.shape[:2], inputs.u_hat.dtype))
        return self.again(inputs, start, 0)

    def again(self, inputs: "_Prepared", state: KMeansTrace, index: Index) -> KMeansTrace:
        b = jnp.einsum("ijd,jd->ij", inputs.compared, _direction(state.s))
        return self._centres(inputs, b)

    def _centres(self, inputs: "_Prepared", b: jax.Array) -> KMeansTrace:
        c = inputs.softmax(b)
        s = jnp.einsum("ij,ijd->jd", c, inputs.u_hat)
        return KMeansTrace(b, c, s, self.squash(s))


class _Prepared(NamedTuple):
    u_hat: jax.Array
    compared: jax.Array
    softmax: Softmax


def _direction(x: jax.Array) -> jax.Array:
    """Vectors `[..., D]` of length one; those without a length stay zero."""
    # Scaled first, so that the square of no length is too small for the derivative.
    scale = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    is_zero = scale < jnp.finfo(x.dtype).tiny
    scaled = jnp.where(is_zero, 1, x / jnp.where(is_zero, 1, scale))
    return jnp.where(is_zero, 0, scaled / norm(scaled, keepdims=True))
