"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax import _checks
from capsjax.capsules import Squash, SquashFunction, accumulation_dtype, norm, squash_from
from capsjax.routing.protocol import EXAMPLES, Routed

Carry = tuple[jax.Array, jax.Array, jax.Array]

SOFTMAX_AXES = {"in": 0, "out": 1}


class RoutingTrace(NamedTuple):
    """Every iteration of dynamic routing on one example, in the symbols of the paper.

    `R` iterations route `I` input capsules to `J` output capsules of dimension `D`. All arrays are
    in `accumulation_dtype` of the votes' dtype.

    Attributes:
        b: `[R, I, J]`, the logits at the start of each iteration.
        c: `[R, I, J]`, the coupling coefficients.
        s: `[R, J, D]`, the output capsules before squash.
        v: `[R, J, D]`, the output capsules.
    """

    b: jax.Array
    c: jax.Array
    s: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class DynamicRouting:
    """Routing by agreement: Procedure 1 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829.

    The coupling coefficients of an input capsule are a softmax over the output capsules. Its logits
    start at zero for every example and grow by the agreement between a vote and the output that all
    votes made together. Gradients flow through every iteration.

    The defaults are the paper's. The other options are what public implementations do instead.

    Attributes:
        iterations: how often the outputs are computed, 3 in the paper; at least 1.
        softmax_over: coupling coefficients sum to one over the `"out"` capsules (the paper's), or
            over the `"in"` capsules.
        shared_logits: whether all examples have the same logits, which grow by the mean agreement
            of the batch. Results then depend on batch mates, and the routing has to be mapped by
            `route` or `map_examples`.
        shared_axes: names of further mapped axes whose examples share their logits: that of the
            devices, where a batch is spread over several. Only used with `shared_logits`.
        detach: whether gradients flow through the last iteration only: its logits are constants.
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these.
    """

    iterations: int = 3
    softmax_over: Literal["out", "in"] = "out"
    shared_logits: bool = False
    shared_axes: tuple[str, ...] = ()
    detach: bool = False
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        """Checks the values."""
        _checks.positive_integer("iterations of dynamic routing", self.iterations)
        _checks.one_of("softmax_over", self.softmax_over, SOFTMAX_AXES)
        _checks.boolean("shared_logits", self.shared_logits)
        _checks.boolean("detach", self.detach)
        object.__setattr__(self, "shared_axes", _checks.names("shared_axes", self.shared_axes))
        object.__setattr__(self, "squash", squash_from(self.squash))

    def __call__(self, votes: jax.Array, activation: jax.Array) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        del activation  # a vector capsule's activation is in the length of its votes already
        return self.route_from(self.initial_logits(votes), votes)

    def route_from(self, b: jax.Array, votes: jax.Array) -> Routed:
        """Routes one example, votes `[I, J, D]`, from the logits `b [I, J]` on."""
        u_hat = votes

        def iterate(carry: Carry, _x: None) -> tuple[Carry, None]:
            b, _, v = carry
            b = self.agree(b, u_hat, v)
            c, _, v = self.outputs(u_hat, b)
            return (b, c, v), None

        # The first iteration stands outside of the loop: its logits, and so its coupling, are the
        # same for all examples of a batch, which a loop would not know.
        c, _, v = self.outputs(u_hat, b)
        (_, c, v), _ = lax.scan(iterate, (b, c, v), length=self.iterations - 1, unroll=True)
        return Routed(pose=v, activation=norm(v), coupling=c)

    def trace(self, votes: jax.Array) -> RoutingTrace:
        """Routes one example, votes `[I, J, D]`, and keeps every iteration.

        `map_examples(routing.trace, votes)` traces a batch.
        """
        return self.trace_from(self.initial_logits(votes), votes)

    def trace_from(self, b: jax.Array, votes: jax.Array) -> RoutingTrace:
        """The same from the logits `b [I, J]` on."""
        steps: list[RoutingTrace] = []
        for iteration in range(self.iterations):
            if iteration > 0:
                b = self.agree(b, votes, steps[-1].v)
            steps.append(RoutingTrace(b, *self.outputs(votes, b)))
        return jax.tree.map(lambda *arrays: jnp.stack(arrays), *steps)

    def initial_logits(self, votes: jax.Array) -> jax.Array:
        """Line 2: zeros `[I, J]`."""
        return jnp.zeros(votes.shape[:2], accumulation_dtype(votes.dtype))

    def outputs(self, u_hat: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Lines 4 to 6: coupling coefficients `c [I, J]`, output capsules `s` and `v [J, D]`."""
        c = jax.nn.softmax(b, axis=SOFTMAX_AXES[self.softmax_over])
        s = _contract("ij,ijd->jd", c.astype(u_hat.dtype), u_hat)
        return c, s, self.squash(s)

    def agree(self, b: jax.Array, u_hat: jax.Array, v: jax.Array) -> jax.Array:
        """Line 7: adds the scalar products of votes and outputs to the logits `[I, J]`."""
        agreement = _contract("ijd,jd->ij", u_hat, v.astype(u_hat.dtype))
        if self.shared_logits:
            agreement = lax.pmean(agreement, (EXAMPLES, *self.shared_axes))
        if self.detach:
            agreement = lax.stop_gradient(agreement)
        return b + agreement


def _contract(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=accumulation_dtype(a.dtype))
