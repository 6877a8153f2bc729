"""Dynamic routing between capsules (Sabour, Frosst and Hinton 2017)."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax import _checks
from capsjax.capsules import Squash, SquashFunction, accumulation_dtype, norm, squash_from
from capsjax.routing._base import EXAMPLES, Routed, Softmax, leaky, softmax_over_out
from capsjax.routing.iterative import all_of, last_of

SOFTMAX_AXES = ("in", "out")


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
        leaky: whether an input capsule may belong to nothing above: a further logit, always zero,
            takes part in the softmax over the output capsules, and what it gets is lost. An option
            of the authors' own code, with which coupling coefficients sum to less than one.
        shared_logits: whether all examples have the same logits, which grow by the mean agreement
            of the batch. Results then depend on batch mates, and the routing has to be mapped by
            `route` or `map_examples`.
        shared_axes: names of further mapped axes whose examples share their logits: that of the
            devices, where a batch is spread over several. Only used with `shared_logits`.
        detach: whether gradients flow through the last iteration only: its logits are constants.
        squash: of the output capsules `[J, D]`; a function, or the fields of a `Squash` by name.

    Raises:
        ValueError: a value is not one of these, or `leaky` goes with a softmax over `"in"`.
    """

    iterations: int = 3
    softmax_over: Literal["out", "in"] = "out"
    leaky: bool = False
    shared_logits: bool = False
    shared_axes: tuple[str, ...] = ()
    detach: bool = False
    squash: SquashFunction = Squash()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        """Checks the values."""
        _checks.positive_integer("iterations of dynamic routing", self.iterations)
        _checks.one_of("softmax_over", self.softmax_over, SOFTMAX_AXES)
        _checks.boolean("leaky", self.leaky)
        if self.leaky and self.softmax_over == "in":
            raise ValueError("leaky needs softmax_over='out': it is the output capsules that lose")
        _checks.boolean("shared_logits", self.shared_logits)
        _checks.boolean("detach", self.detach)
        object.__setattr__(self, "shared_axes", _checks.names("shared_axes", self.shared_axes))
        object.__setattr__(self, "squash", squash_from(self.squash))

    def __call__(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> Routed:
        """Routes one example: votes `[I, J, D]`, activation `[I]` (not used) -> `Routed`."""
        del activation  # a vector capsule's activation is in the length of its votes already
        return self.route_from(self.initial_logits(votes), votes, softmax=softmax)

    def route_from(
        self, b: jax.Array, votes: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> Routed:
        """Routes one example, votes `[I, J, D]`, from the logits `b [I, J]` on."""
        return self.outcome(last_of(*self._steps(b, votes, softmax), self.iterations))

    def trace(
        self, votes: jax.Array, activation: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> RoutingTrace:
        """Routes one example, votes `[I, J, D]`, and keeps every iteration."""
        del activation
        return self.trace_from(self.initial_logits(votes), votes, softmax=softmax)

    def trace_from(
        self, b: jax.Array, votes: jax.Array, *, softmax: Softmax = softmax_over_out
    ) -> RoutingTrace:
        """The same from the logits `b [I, J]` on."""
        return all_of(*self._steps(b, votes, softmax), self.iterations)

    def outcome(self, state: RoutingTrace) -> Routed:
        """What one iteration of a trace comes to."""
        return Routed(pose=state.v, activation=norm(state.v), coupling=state.c)

    def _steps(
        self, b: jax.Array, u_hat: jax.Array, softmax: Softmax
    ) -> tuple[RoutingTrace, Callable[[RoutingTrace, jax.Array], RoutingTrace]]:
        def again(state: RoutingTrace, _index: jax.Array) -> RoutingTrace:
            b = self.agree(state.b, u_hat, state.v)
            return RoutingTrace(b, *self.outputs(u_hat, b, softmax))

        return RoutingTrace(b, *self.outputs(u_hat, b, softmax)), again

    def initial_logits(self, votes: jax.Array) -> jax.Array:
        """Line 2: zeros `[I, J]`."""
        return jnp.zeros(votes.shape[:2], accumulation_dtype(votes.dtype))

    def outputs(
        self, u_hat: jax.Array, b: jax.Array, softmax: Softmax = softmax_over_out
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Lines 4 to 6: coupling coefficients `c [I, J]`, output capsules `s` and `v [J, D]`."""
        c = self.coupling(b, softmax)
        s = _contract("ij,ijd->jd", c.astype(u_hat.dtype), u_hat)
        return c, s, self.squash(s)

    def coupling(self, b: jax.Array, softmax: Softmax = softmax_over_out) -> jax.Array:
        """Line 4: coupling coefficients `c [I, J]` of the logits `b [I, J]`."""
        if self.softmax_over == "in":
            return jax.nn.softmax(b, axis=0)
        return leaky(softmax)(b) if self.leaky else softmax(b)

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
