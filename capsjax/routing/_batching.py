"""A routing, written for one example, over batches and over the positions of a convolution."""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from capsjax import _checks
from capsjax.ops._arrays import split
from capsjax.ops._meshes import sharded_alike
from capsjax.ops.patches import Windows
from capsjax.routing._base import IterativeRouting, Routed, Routing, name_of, needed, needs_of
from capsjax.routing._inputs import RoutingInputs, check_mask, softmax_over_out

EXAMPLES = "capsjax_examples"
"""The name of the axis over which `map_examples` maps: what a routing may reduce over."""

POSITIONS = "capsjax_positions"
"""The name of the axis over the positions of one example."""

Competition = Literal["all", "patch"]

T = TypeVar("T")


def route(
    routing: Routing,
    votes: jax.Array,
    activation: jax.Array,
    *,
    pose: jax.Array | None = None,
    mask: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Routed:
    """Applies a routing to every example of a batch.

    Args:
        routing: the algorithm for one example.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.
        pose: `[..., I, K]`, for a routing that needs it.
        mask: `[..., I]` booleans: an input capsule that is not there, False, has a coupling of
            zero, and the result is that of the others, whatever its votes are; its gradient is
            zero. None where all are there. (An activation of zero says less: many routings look at
            votes alone.)
        key: a random key, of which each example gets its own, or keys of the first leading axes,
            one for each example or for what several have in common, of which each gets its own; for
            a routing that draws. None where nothing is to be drawn.

    Returns:
        `Routed` with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: it is no routing, the shapes do not belong together, it needs a pose and there
            is none, it knows no mask and there is one, or it returned something else than the
            protocol asks for.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> routed = capsjax.route(capsjax.routing.Dynamic(), votes, jnp.ones((2, 6)))
        >>> routed.pose.shape, routed.coupling.shape
        ((2, 3, 16), (2, 6, 3))
    """
    inputs = RoutingInputs(votes, activation, pose, mask=mask, key=key)
    return over_examples(last_iteration, routing, inputs)


def trace(
    routing: IterativeRouting,
    votes: jax.Array,
    activation: jax.Array,
    *,
    pose: jax.Array | None = None,
    mask: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Any:
    """What a routing computes on the way, for every example of a batch.

    It is called as `route` is, with an `IterativeRouting`, as all of the library's are. It returns
    what `routing.trace` does, with the leading axes of `votes` on each array: `[..., R, ...]`.

    Raises:
        ValueError: as `route`, or the routing is no `IterativeRouting`.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> votes = jnp.ones((2, 6, 3, 16))  # two examples, in which six capsules vote for three
        >>> states = capsjax.trace(capsjax.routing.Dynamic(iterations=3), votes, jnp.ones((2, 6)))
        >>> states.v.shape, states.c.shape
        ((2, 3, 3, 16), (2, 3, 6, 3))
    """
    inputs = RoutingInputs(votes, activation, pose, mask=mask, key=key)
    return over_examples(_trace, routing, inputs)


def _trace(routing: IterativeRouting, inputs: RoutingInputs) -> Any:
    if not hasattr(routing, "trace"):
        raise ValueError(f"{name_of(routing)} has no trace: it is no IterativeRouting")
    return routing.trace(inputs.votes, inputs.activation, **needed(routing, inputs))


def last_iteration(routing: Routing, inputs: RoutingInputs) -> Routed:
    """What a routing returns for one example, checked: a ValueError where it is something else."""
    if not isinstance(routing, IterativeRouting):  # which does so itself
        inputs = inputs.masked()
    routed = routing(inputs.votes, inputs.activation, **needed(routing, inputs))
    name = name_of(routing)
    if not isinstance(routed, Routed):
        raise ValueError(f"{name} returned a {type(routed).__name__}, expected a Routed")
    n_in, n_out, dim = inputs.votes.shape
    expected = {"pose": (n_out, dim), "activation": (n_out,), "coupling": (n_in, n_out)}
    for field, shape in expected.items():
        returned = getattr(routed, field).shape
        if returned != shape:
            raise ValueError(f"{name} returned {field} of shape {returned}, expected {shape}")
    return routed


def every_iteration(routing: Routing, inputs: RoutingInputs) -> Routed:
    """What each of the `R` iterations comes to on one example, arrays `[R, ...]`.

    A routing that is no `IterativeRouting` has one.
    """
    if isinstance(routing, IterativeRouting):
        return jax.vmap(routing.outcome)(_trace(routing, inputs))
    return jax.tree.map(lambda array: array[None], last_iteration(routing, inputs))


def next_iteration(routing: Routing, inputs: RoutingInputs, *before: Any) -> tuple[Routed, Any]:
    """One iteration on one example, see `IterativeRouting.iterate`; a ValueError if it has none."""
    if not isinstance(routing, IterativeRouting):
        raise ValueError(
            f"{name_of(routing)} cannot take one iteration at a time: it is no IterativeRouting"
        )
    return routing.iterate(inputs, *before)


def over_examples(
    function: Callable[..., T],
    routing: Any,
    inputs: RoutingInputs,
    *others: Any,
    axis_name: str | None = EXAMPLES,
) -> T:
    """Applies a function of a routing and one example to every example of a batch.

    The function takes the routing, `RoutingInputs`, and its part of the other trees of arrays; all
    have the same leading axes. A ValueError if the shapes do not belong together; without a name of
    the axis, JAX's NameError if examples have something in common.
    """
    votes, activation = inputs.votes, inputs.activation
    if votes.ndim < 3 or activation.shape != votes.shape[:-2]:
        raise ValueError(
            "a routing takes votes [..., I, J, D] and activations [..., I], "
            f"not {votes.shape} and {activation.shape}"
        )
    if not jnp.issubdtype(votes.dtype, jnp.floating):
        raise ValueError(f"votes must be floats, not {votes.dtype}: give votes.astype(jnp.float32)")
    arrays = _mapped(routing, inputs)

    def of_example(votes: jax.Array, arrays: dict[str, Any], *others: Any) -> T:
        return function(routing, RoutingInputs(votes, **arrays), *others)

    return _map_examples(axis_name, of_example, votes, arrays, *others)


def _mapped(routing: Any, inputs: RoutingInputs) -> dict[str, Any]:
    """What a routing sees of each example beside the votes, by its name.

    A ValueError if the mask is not of the capsules, or the key is none of `jax.random.key`.
    """
    arrays = {"activation": inputs.activation, "mask": inputs.mask}
    needed_too = {"pose", "key", "vote_sum"} & {*needs_of(routing)}
    arrays |= {name: getattr(inputs, name) for name in needed_too}
    mask, shape = inputs.mask, inputs.activation.shape
    check_mask(mask, shape)
    if arrays.get("key") is not None:
        arrays["key"] = keys_of(arrays["key"], shape[:-1])
    return arrays


def keys_of(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Keys of a shape, made of keys of its first axes; a ValueError if they are no such keys."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"a key must be one of jax.random.key, not {key.dtype} {list(key.shape)}")
    if key.shape != shape[: key.ndim]:
        raise ValueError(
            f"keys must be one, or of the first axes of {list(shape)}, not {list(key.shape)}"
        )
    if key.shape == shape:
        return key
    split_each = functools.partial(jax.random.split, num=shape[key.ndim :])
    for _ in range(key.ndim):
        split_each = jax.vmap(split_each)
    return split_each(key)


def map_examples(function: Callable[..., T], votes: jax.Array, *others: Any) -> T:
    """Applies a function of one example to every example of a batch.

    All leading axes become one, over which the function is mapped under the name `EXAMPLES`: a
    routing whose examples have something in common takes `jax.lax.pmean(x, EXAMPLES)`.

    Args:
        function: takes the votes `[I, J, D]` of one example and its part of each other array, and
            returns a tree of arrays; such as `Dynamic().trace`.
        votes: `[..., I, J, D]`.
        *others: further arrays, or trees of arrays, with the same leading axes.

    Returns:
        What the function returns, with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: the votes have too few axes, or another array has other leading axes.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> mean = lambda votes, activation: votes.mean(axis=0)
        >>> capsjax.routing.map_examples(mean, jnp.ones((2, 6, 3, 16)), jnp.ones((2, 6))).shape
        (2, 3, 16)
    """
    return _map_examples(EXAMPLES, function, votes, *others)


def _map_examples(
    axis_name: str | None, function: Callable[..., T], votes: jax.Array, *others: Any
) -> T:
    if votes.ndim < 3:
        raise ValueError(f"votes must be [..., I, J, D], not {votes.shape}")
    leading = votes.shape[:-3]
    for other in jax.tree.leaves(others):
        if other.shape[: len(leading)] != leading:
            raise ValueError(
                f"votes of shape {votes.shape} have the leading axes {leading}, "
                f"an array of shape {other.shape} has not"
            )
    flat = jax.tree.map(
        lambda x: lax.collapse(x, 0, len(leading)) if leading else x[None], (votes, *others)
    )
    flat = sharded_alike(flat, flat[0])
    mapped = jax.vmap(function, axis_name=axis_name)(*flat)
    return jax.tree.map(lambda x: split(x, 0, *leading), mapped)


def check_competition(competition: Competition, routing: Routing) -> Competition:
    """The competition, if the routing can have it; else a ValueError."""
    _checks.one_of("competition", competition, ("all", "patch"))
    if competition == "all" and "softmax" not in needs_of(routing):
        raise ValueError(
            f"{name_of(routing)} takes no softmax, so its capsules cannot compete over all "
            "positions: choose competition='patch'"
        )
    if competition == "all" and getattr(routing, "softmax_over", "out") == "in":
        raise ValueError(
            f"with softmax_over='in' the capsules of {name_of(routing)} do not compete: choose "
            "competition='patch'"
        )
    return competition


def over_positions(
    function: Callable[..., T],
    routing: Any,
    inputs: RoutingInputs,
    *others: Any,
    windows: Windows,
    axis_name: str | None = EXAMPLES,
) -> T:
    """Applies a function of a routing and what one position of a convolution sees to all of them.

    The output capsules at all positions that see an input capsule compete for it, so the routing
    needs a softmax. The function is as of `over_examples`; the leading axes of all arrays are
    `[batch, P, Q]`, and at each position there are `I = size * size * B` capsules.
    """

    def softmax(logits: jax.Array) -> jax.Array:
        # So there is an array for each position, also where logits are still the same for all.
        return softmax_at(lax.axis_index(POSITIONS), logits)

    @custom_vmap
    def softmax_at(position: jax.Array, logits: jax.Array) -> jax.Array:
        return softmax_over_out(logits)  # never computed: there is a position for each call

    # Not `lax.all_gather`: in `jax.shard_map` it knows no axis but those of the mesh.
    @softmax_at.def_vmap
    def softmax_everywhere(
        count: int, is_mapped: list[bool], _position: jax.Array, logits: jax.Array
    ) -> tuple[jax.Array, bool]:
        if not is_mapped[1]:
            # XLA would compute the softmax of constants while it compiles, which takes it seconds.
            logits = lax.optimization_barrier(logits)
            logits = jnp.broadcast_to(logits[None], (count, *logits.shape))
        logits = split(split(logits, 1, windows.size**2, -1), 0, *windows.counts)
        return lax.collapse(lax.collapse(windows.softmax(logits), 2, 4), 0, 2), True

    def at_position(votes: jax.Array, arrays: dict[str, Any], *others: Any) -> T:
        return function(routing, RoutingInputs(votes, softmax=softmax, **arrays), *others)

    def of_example(*arrays: Any) -> T:
        flat = jax.tree.map(lambda x: lax.collapse(x, 0, 2), arrays)
        routed = jax.vmap(at_position, axis_name=POSITIONS)(*flat)
        return jax.tree.map(lambda x: split(x, 0, *windows.counts), routed)

    arrays = (inputs.votes, _mapped(routing, inputs), *others)
    arrays = sharded_alike(arrays, inputs.votes)
    return jax.vmap(of_example, axis_name=axis_name)(*arrays)
