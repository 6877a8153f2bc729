"""Looking inside: how decided a routing is, whether votes agree, what each iteration changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from capsjax.capsules import Capsules, in_a_list, norm
from capsjax.routing import Routed, trace


def coupling_entropy(coupling: jax.Array) -> jax.Array:
    """How undecided each input capsule is: the entropy of its shares of what it sends, in nats.

    Args:
        coupling: `[..., I, J]`, not negative. What does not sum to one over `J` is taken as shares
            of its sum.

    Returns:
        `[..., I]`: `log J` where all outputs get alike, 0 where one gets all, or nothing is sent.
    """
    total = jnp.sum(coupling, axis=-1, keepdims=True)
    share = jnp.where(total > 0, coupling / jnp.where(total > 0, total, 1), 0)
    positive = share > 0
    return -jnp.sum(jnp.where(positive, share * jnp.log(jnp.where(positive, share, 1)), 0), axis=-1)


def agreement(votes: jax.Array, routed: Routed) -> jax.Array:
    """How far the votes point where their output capsule points.

    Args:
        votes: `[..., I, J, D]`.
        routed: what they were routed to.

    Returns:
        `[...]`: the mean of the cosines between votes and poses, weighted by the coupling; from -1
        to 1, and 0 where nothing is sent.
    """
    lengths = norm(votes) * norm(routed.pose)[..., None, :]
    products = jnp.einsum("...ijd,...jd->...ij", votes, routed.pose)
    cosines = jnp.where(lengths > 0, products / jnp.where(lengths > 0, lengths, 1), 0)
    total = jnp.sum(routed.coupling, axis=(-2, -1))
    weighted = jnp.sum(routed.coupling * cosines, axis=(-2, -1))
    return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1), 0)


def dead_share(activation: jax.Array, threshold: float = 0.01) -> jax.Array:
    """The share of capsules that are there for no example.

    Args:
        activation: `[N, ..., J]`, of many examples.
        threshold: a capsule whose mean activation is less is dead.
    """
    mean = jnp.mean(activation, axis=tuple(range(activation.ndim - 1)))
    return jnp.mean(mean < threshold)


class Inspected(NamedTuple):
    """What a layer of capsules does in each of `R` iterations, means over a batch.

    Attributes:
        entropy: `[R]`, see `coupling_entropy`.
        agreement: `[R]`, see `agreement`.
        coupling_change: `[R - 1]`, the mean distance between the coupling coefficients of an
            iteration and of the one before.
        pose_change: `[R - 1]`, the mean distance between their poses, as a share of their mean
            length.
        dead: the share of capsules that are dead after the last, see `dead_share`.
    """

    entropy: jax.Array
    agreement: jax.Array
    coupling_change: jax.Array
    pose_change: jax.Array
    dead: jax.Array


def iterations_of(layer: Any, below: Capsules) -> tuple[jax.Array, Routed]:
    """The votes of a layer, and what each iteration of its routing makes of them.

    Args:
        layer: a `DenseCaps` or a `ClassCaps`, whose routing has `trace` and `outcome`.
        below: the capsules below, a batch.

    Returns:
        Votes `[batch, I, J, D]`, and `Routed` of arrays `[batch, R, ...]`.

    Raises:
        ValueError: the routing cannot show its work.
    """
    if not hasattr(layer.routing, "trace"):
        raise ValueError(f"{type(layer.routing).__name__} has no trace: it cannot show its work")
    votes = layer.votes(below.pose)
    pose, activation = in_a_list(below)
    traced = trace(layer.routing, votes, activation, pose=pose)
    outcome: Callable[[Any], Routed] = layer.routing.outcome
    return votes, jax.vmap(jax.vmap(outcome))(traced)


def inspect_layer(layer: Any, below: Capsules) -> Inspected:
    """Looks into a layer of capsules.

    Args:
        layer: as of `iterations_of`.
        below: as of `iterations_of`.

    Raises:
        ValueError: as of `iterations_of`.
    """
    votes, routed = iterations_of(layer, below)
    before = jax.tree.map(lambda x: x[:, :-1], routed)
    after = jax.tree.map(lambda x: x[:, 1:], routed)
    moved = jnp.mean(norm(after.pose - before.pose), axis=(0, 2))
    length = jnp.mean(norm(after.pose), axis=(0, 2))
    return Inspected(
        entropy=jnp.mean(coupling_entropy(routed.coupling), axis=(0, 2)),
        agreement=jnp.mean(jax.vmap(agreement, (None, 1), 1)(votes, routed), axis=0),
        coupling_change=jnp.mean(jnp.abs(after.coupling - before.coupling), axis=(0, 2, 3)),
        pose_change=jnp.where(length > 0, moved / jnp.where(length > 0, length, 1), 0),
        dead=dead_share(routed.activation[:, -1]),
    )
