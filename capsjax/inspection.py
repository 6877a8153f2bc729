"""Looking inside: how decided a routing is, whether votes agree, what each iteration changes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from capsjax import _deprecated
from capsjax.capsules import Capsules, norm
from capsjax.layers import Iteration
from capsjax.routing import Routed

__getattr__ = _deprecated.names_of(__name__)

DEAD = 0.01
"""Mean activation over many examples below which a capsule is called dead: it is there for none.

Of more than a hundred classes, one that is there for its own examples alone is below it, too.
"""


def coupling_entropy(coupling: jax.Array) -> jax.Array:
    """How undecided each input capsule is: the entropy of its shares of what it sends, in nats.

    Args:
        coupling: `[..., I, J]`. What counts is its size, as shares of the sum over `J`: it may be
            negative (`SelfAttention`) and need not sum to one.

    Returns:
        `[..., I]`: `log J` where all outputs get alike, 0 where one gets all, or nothing is sent.

    Examples:
        >>> import jax.numpy as jnp
        >>> from capsjax.inspection import coupling_entropy
        >>> print(*(f"{e:.2f}" for e in coupling_entropy(jnp.array([[0.5, 0.5], [0.9, 0.1]]))))
        0.69 0.33
    """
    coupling = jnp.abs(coupling)
    total = jnp.sum(coupling, axis=-1, keepdims=True)
    share = jnp.where(total > 0, coupling / jnp.where(total > 0, total, 1), 0)
    positive = share > 0
    return -jnp.sum(jnp.where(positive, share * jnp.log(jnp.where(positive, share, 1)), 0), axis=-1)


def vote_cosine(votes: jax.Array, routed: Routed) -> jax.Array:
    """How far the votes point where their output capsule points.

    Args:
        votes: `[..., I, J, D]`.
        routed: what they were routed to.

    Returns:
        `[...]`: the mean of the cosines between votes and poses, weighted by the coupling; from -1
        to 1, and 0 where nothing is sent. A vote that is coupled negatively agrees where it points
        away.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> from capsjax.inspection import vote_cosine
        >>> votes = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two capsules vote for one
        >>> routed = capsjax.Routed(jnp.array([[1.0, 0.0]]), jnp.ones(1), jnp.full((2, 1), 0.5))
        >>> vote_cosine(votes, routed)
        Array(0.5, dtype=float32)
    """
    cosines = jnp.einsum("...ijd,...jd->...ij", _directions(votes), _directions(routed.pose))
    total = jnp.sum(jnp.abs(routed.coupling), axis=(-2, -1))
    weighted = jnp.sum(routed.coupling * cosines, axis=(-2, -1))
    return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1), 0)


def _directions(x: jax.Array) -> jax.Array:
    """Vectors of length one along the last axis; of zero, zero."""
    lengths = norm(x)[..., None]
    return jnp.where(lengths > 0, x / jnp.where(lengths > 0, lengths, 1), 0)


def dead_share(activation: jax.Array, threshold: float = DEAD) -> jax.Array:
    """The share of capsules that are there for no example, or hardly any, see `DEAD`.

    Args:
        activation: `[N, ..., J]`, of many examples.
        threshold: a capsule whose mean activation is less is dead.

    Examples:
        >>> import jax.numpy as jnp
        >>> from capsjax.inspection import dead_share
        >>> dead_share(jnp.array([[0.9, 0.001], [0.8, 0.002]]))
        Array(0.5, dtype=float32)
    """
    mean = jnp.mean(activation, axis=tuple(range(activation.ndim - 1)))
    return jnp.mean(mean < threshold)


class Inspected(NamedTuple):
    """What a layer of capsules does in each of `R` iterations, means over a batch.

    Attributes:
        entropy: `[R]`, see `coupling_entropy`.
        uniform: the entropy of uniform coupling, `log J`.
        vote_cosine: `[R]`, see `vote_cosine`.
        coupling_change: `[R - 1]`, the mean distance between the coupling coefficients of an
            iteration and of the one before.
        pose_change: `[R - 1]`, the mean distance between their poses, as a share of their mean
            length.
        dead: the share of capsules that are dead after the last, see `dead_share`.
    """

    entropy: jax.Array
    uniform: jax.Array
    vote_cosine: jax.Array
    coupling_change: jax.Array
    pose_change: jax.Array
    dead: jax.Array


def inspect_layer(layer: Any, below: Capsules) -> Inspected:
    """Looks into a layer of capsules whose iterations follow one another.

    Args:
        layer: a layer with a routing, such as `DenseCaps` or `ConvCaps`; the latter has the same
            capsules at every position.
        below: the capsules below, a batch.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> routing = capsjax.routing.Dynamic(iterations=3)
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> below = capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6)))
        >>> inspected = capsjax.inspect_layer(layer, below)
        >>> inspected.entropy.shape, inspected.pose_change.shape
        ((3,), (2,))
    """
    votes = layer.votes(below.pose)
    # The axis of the iterations comes after those of the batch and of the positions.
    axis = votes.ndim - 3
    iterations = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), layer.iterations(below))
    return _inspected(jax.vmap(vote_cosine, (None, 0))(votes, iterations), iterations)


def inspect_iterations(
    layer: Any, below: Sequence[Capsules], iterations: Sequence[Iteration]
) -> Inspected:
    """Looks into a layer that routed at once with other layers, by its `iterate`.

    Args:
        layer: the layer.
        below: what it was given in each iteration.
        iterations: what it made of that.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> from capsjax.inspection import inspect_iterations
        >>> routing = capsjax.routing.Dynamic(iterations=2)
        >>> layer = capsjax.DenseCaps(6, 8, 3, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> below = capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6)))
        >>> first = layer.iterate(below)
        >>> second = layer.iterate(below, first.state)
        >>> inspect_iterations(layer, [below, below], [first, second]).entropy.shape
        (2,)
    """
    routed = [Routed(*made.capsules, made.coupling) for made in iterations]
    cosines = [
        vote_cosine(layer.votes(capsules.pose), made)
        for capsules, made in zip(below, routed, strict=True)
    ]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *routed)
    return _inspected(jnp.stack(cosines), stacked)


def _inspected(cosines: jax.Array, routed: Routed) -> Inspected:
    """Of cosines `[R, ...]` and of what is `[R, ..., J, D]`, with any axes in between."""
    before = jax.tree.map(lambda x: x[:-1], routed)
    after = jax.tree.map(lambda x: x[1:], routed)
    moved, length = _mean(norm(after.pose - before.pose)), _mean(norm(after.pose))
    return Inspected(
        entropy=_mean(coupling_entropy(routed.coupling)),
        uniform=jnp.log(jnp.asarray(routed.coupling.shape[-1], routed.coupling.dtype)),
        vote_cosine=_mean(cosines),
        coupling_change=_mean(jnp.abs(after.coupling - before.coupling)),
        pose_change=jnp.where(length > 0, moved / jnp.where(length > 0, length, 1), 0),
        dead=dead_share(routed.activation[-1]),
    )


def _mean(x: jax.Array) -> jax.Array:
    """`[R, ...]` -> `[R]`."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
