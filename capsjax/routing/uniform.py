"""No routing: every input capsule is shared out equally."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax.capsules import Squash, SquashFunction, accumulation_dtype, squash_from
from capsjax.ops._arrays import product
from capsjax.routing._base import IterativeRouting, RoutingInputs


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

    `s_j = 1/J sum_i u_hat_ij`, `v_j = squash(s_j)`. Gu and Tresp 2020, arXiv:1911.07968, section 4:
    without routing a capsule network is no less accurate, and with transformation matrices that all
    input capsules share (`DenseCaps(..., shared=True)`) more robust to affine transformations. It
    is the first iteration of dynamic routing, and has no other.

    Attributes:
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: the squash is none.
    """

    iterations = 1
    needs = ("softmax",)

    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        object.__setattr__(self, "squash", squash_from(self.squash))

    def first(self, inputs: RoutingInputs) -> UniformTrace:
        votes = inputs.votes
        c = inputs.softmax(jnp.zeros(votes.shape[:2], accumulation_dtype(votes.dtype)))
        s = product("ij,ijd->jd", c.astype(votes.dtype), votes)
        return UniformTrace(c, s, self.squash(s))
