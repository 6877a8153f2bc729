"""Routing at every position of a convolution."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
from jax import lax

from capsjax import _checks
from capsjax.ops.patches import Windows
from capsjax.routing._base import (
    EXAMPLES,
    Routing,
    Softmax,
    asks_for,
    name_of,
    over_examples,
)

T = TypeVar("T")

POSITIONS = "capsjax_positions"
"""The name of the axis over the positions of one example."""

Competition = Literal["all", "patch"]
COMPETITIONS: tuple[Competition, ...] = ("all", "patch")


def check_competition(competition: Competition, routing: Routing) -> Competition:
    """The competition, if there is one of that name and the routing can have it.

    Raises:
        ValueError: there is none, or it cannot.
    """
    _checks.one_of("competition", competition, COMPETITIONS)
    if competition == "all" and "softmax" not in asks_for(routing):
        raise ValueError(
            f"{name_of(routing)} does not ask for a softmax, so its capsules cannot compete over "
            "all positions: choose competition='patch'"
        )
    return competition


def over_patches(
    function: Callable[..., T],
    routing: Routing,
    votes: jax.Array,
    activation: jax.Array,
    *others: Any,
    pose: jax.Array,
    windows: Windows,
    competition: Competition,
) -> T:
    """Applies a function of what one position of a convolution sees to all of them.

    It is called like a routing; `I` is `size * size * B` capsules.

    Args:
        function: takes votes, activation, what is in `others`, and what the routing asks for.
        routing: of which the function is a part, or all of it.
        votes: `[batch, P, Q, I, J, D]`.
        activation: `[batch, P, Q, I]`.
        *others: trees of arrays `[batch, P, Q, ...]`.
        pose: `[batch, P, Q, I, K]`.
        windows: which capsules each position sees.
        competition: what the softmax of an input capsule is over: the output capsules at `"all"`
            positions that see it, or those of each `"patch"` for itself.

    Returns:
        What the function returns, with the axes `[batch, P, Q]` in front of each array.

    Raises:
        ValueError: the routing cannot compete over all positions.
    """
    if check_competition(competition, routing) == "patch":
        return over_examples(function, routing, votes, activation, pose, *others)
    asked = asks_for(routing)

    def of_example(*arrays: Any) -> T:
        def at_position(votes: Any, activation: Any, pose: Any, *others: Any) -> T:
            offered = {"pose": pose, "softmax": _over_all_positions(windows)}
            chosen = {name: offered[name] for name in sorted(asked)}
            return function(votes, activation, *others, **chosen)

        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), arrays)
        routed = jax.vmap(at_position, axis_name=POSITIONS)(*flat)
        return jax.tree.map(lambda x: x.reshape(*windows.counts, *x.shape[1:]), routed)

    return jax.vmap(of_example, axis_name=EXAMPLES)(votes, activation, pose, *others)


def _over_all_positions(windows: Windows) -> Softmax:
    def softmax(logits: jax.Array) -> jax.Array:
        everywhere = lax.all_gather(logits, POSITIONS)  # [P Q, I, J]
        n_in, n_out = logits.shape
        coupling = windows.softmax(
            everywhere.reshape(*windows.counts, windows.size**2, -1, n_out)
        ).reshape(-1, n_in, n_out)
        return lax.dynamic_index_in_dim(coupling, lax.axis_index(POSITIONS), keepdims=False)

    return softmax
