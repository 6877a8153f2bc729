"""Routings that take one iteration at a time, so that all layers of a network can route at once."""

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import jax

from capsjax.routing._base import Routed, Routing


@runtime_checkable
class StepwiseRouting(Protocol):
    """A routing whose iterations can be taken one by one, with other votes each time.

    `first` and `again` take what the routing's call takes; calling it is `first` and then
    `again` until there are `iterations` in all, of which `outcome` is the last.
    """

    @property
    def iterations(self) -> int:
        """How many iterations the call has."""
        ...

    def first(self, votes: jax.Array, activation: jax.Array) -> Any:
        """The first iteration of one example: votes `[I, J, D]`, activation `[I]` -> a state."""
        ...

    def again(self, state: Any, votes: jax.Array, activation: jax.Array) -> Any:
        """One more iteration, from the state of the one before."""
        ...

    def outcome(self, state: Any) -> Routed:
        """What a state comes to."""
        ...


def is_stepwise(routing: Any) -> TypeGuard[StepwiseRouting]:
    """Whether a routing can take one iteration at a time."""
    return isinstance(routing, StepwiseRouting)


def stepping(routing: Routing) -> Callable[..., tuple[Routed, Any]]:
    """An iteration of a routing as a function that is called like it.

    Args:
        routing: one that is stepwise.

    Returns:
        A function of votes `[I, J, D]`, activation `[I]`, but for the first iteration the state of
        the one before, and by name of what the routing asks for. It returns what the routing would
        if this iteration were the last, and its state.

    Raises:
        ValueError: the routing cannot take one iteration at a time.
    """
    if not is_stepwise(routing):
        raise ValueError(
            f"{type(routing).__name__} cannot take one iteration at a time: it has not all of "
            "iterations, first, again and outcome"
        )

    def step(
        votes: jax.Array, activation: jax.Array, *state: Any, **asked: Any
    ) -> tuple[Routed, Any]:
        if state:
            (before,) = state
            now = routing.again(before, votes, activation, **asked)
        else:
            now = routing.first(votes, activation, **asked)
        return routing.outcome(now), now

    return step
