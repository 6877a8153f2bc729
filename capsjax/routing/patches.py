"""Routing at every position of a convolution."""

from typing import Literal

import jax
from jax import lax

from capsjax import _checks
from capsjax.ops.patches import Windows
from capsjax.routing.protocol import (
    EXAMPLES,
    Routed,
    Routing,
    Softmax,
    asks_for,
    name_of,
    route,
    route_one,
)

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


def route_patches(
    routing: Routing,
    votes: jax.Array,
    activation: jax.Array,
    *,
    pose: jax.Array,
    windows: Windows,
    competition: Competition,
) -> Routed:
    """Routes what each position of a convolution sees; `I` is `size * size * B` capsules.

    Args:
        routing: the algorithm for one position of one example.
        votes: `[batch, P, Q, I, J, D]`.
        activation: `[batch, P, Q, I]`.
        pose: `[batch, P, Q, I, K]`.
        windows: which capsules each position sees.
        competition: what the softmax of an input capsule is over: the output capsules at `"all"`
            positions that see it, or those of each `"patch"` for itself.

    Returns:
        Poses `[batch, P, Q, J, D]`, activations `[batch, P, Q, J]` and coupling coefficients
        `[batch, P, Q, I, J]`.

    Raises:
        ValueError: the routing cannot compete over all positions, or returned something else than
            the protocol asks for.
    """
    if check_competition(competition, routing) == "patch":
        return route(routing, votes, activation, pose=pose)
    asked = asks_for(routing)

    def of_example(votes: jax.Array, activation: jax.Array, pose: jax.Array) -> Routed:
        def at_position(votes: jax.Array, activation: jax.Array, pose: jax.Array) -> Routed:
            offered = {"pose": pose, "softmax": _over_all_positions(windows)}
            return route_one(
                routing, votes, activation, **{name: offered[name] for name in sorted(asked)}
            )

        flat = [x.reshape(-1, *x.shape[2:]) for x in (votes, activation, pose)]
        routed = jax.vmap(at_position, axis_name=POSITIONS)(*flat)
        return jax.tree.map(lambda x: x.reshape(*votes.shape[:2], *x.shape[1:]), routed)

    return jax.vmap(of_example, axis_name=EXAMPLES)(votes, activation, pose)


def _over_all_positions(windows: Windows) -> Softmax:
    def softmax(logits: jax.Array) -> jax.Array:
        everywhere = lax.all_gather(logits, POSITIONS)  # [P Q, I, J]
        n_in, n_out = logits.shape
        coupling = windows.softmax(
            everywhere.reshape(*windows.counts, windows.size**2, -1, n_out)
        ).reshape(-1, n_in, n_out)
        return lax.dynamic_index_in_dim(coupling, lax.axis_index(POSITIONS), keepdims=False)

    return softmax
