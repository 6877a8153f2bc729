"""What a routing is: a map from the votes of one example to the capsules above."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

EXAMPLES = "capsjax_examples"
"""The name of the axis over which `map_examples` maps: what a routing may reduce over."""

T = TypeVar("T")

Softmax = Callable[[jax.Array], jax.Array]
"""`[I, J]` -> `[I, J]`: a softmax over all output capsules that an input capsule votes for."""

OFFERS = ("pose", "softmax")
"""What a routing may ask for beside votes and activations, see `Routing`."""


class Routed(NamedTuple):
    """What a routing returns for one example of `J` output capsules of dimension `D`.

    Attributes:
        pose: `[J, D]`.
        activation: `[J]`.
        coupling: `[I, J]`, the coupling coefficients that the poses were made with.
    """

    pose: jax.Array
    activation: jax.Array
    coupling: jax.Array


class Routing(Protocol):
    """A routing algorithm, written for one example.

    Batches, positions of a convolution, devices and seeds are the library's business: `route` maps
    the call over all leading axes. A routing with parameters is a `flax.nnx.Module` with this same
    call; one without is a frozen dataclass, or a function.

    A routing that needs more asks for it by naming it in its signature, keyword-only:

    - `pose`: `[I, K]`, the poses of the input capsules themselves;
    - `softmax`: a function of logits `[I, J]`. In a convolution an input capsule votes for output
      capsules at several positions, of which a routing sees one; this softmax is over all of them.
      It needs a default, `softmax_over_out`, for everywhere else.

    The routings of this library can show their work. `trace(votes, activation, ...)`, called like
    the routing, returns a NamedTuple of what every iteration computed, in the symbols of the paper,
    each `[R, ...]`; `outcome(state)` is the `Routed` of one iteration of it.
    """

    def __call__(self, votes: jax.Array, activation: jax.Array) -> Routed:
        """Routes one example.

        Args:
            votes: `[I, J, D]`, what each of `I` input capsules predicts for each of `J` output
                capsules.
            activation: `[I]`, the activations of the input capsules.

        Returns:
            The output capsules and their coupling, in `accumulation_dtype(votes.dtype)`.
        """
        ...


class Sizes(NamedTuple):
    """What a routing connects, as far as its parameters depend on it.

    Attributes:
        in_capsules: number of capsules below that an output capsule sees, `I`.
        in_dim: dimension of their poses, `K`.
        out_capsules: number of capsules above, in a convolution at one position, `J`.
        out_dim: dimension of their poses, `D`.
    """

    in_capsules: int
    in_dim: int
    out_capsules: int
    out_dim: int


@runtime_checkable
class UnsizedRouting(Protocol):
    """A routing with parameters, before it is known how many capsules it connects.

    It stands where a routing is asked for, and the layer that it is given to, which knows the
    sizes, builds the routing.
    """

    def build(self, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> Routing:
        """Makes the routing.

        Args:
            sizes: what it connects.
            param_dtype: dtype of the parameters.
            rngs: source of the initial values.
        """
        ...


def sized(
    routing: Routing | UnsizedRouting, sizes: Sizes, *, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> Routing:
    """The routing of a layer: as given, or built for the layer's sizes.

    Raises:
        ValueError: it is no routing.
    """
    if isinstance(routing, UnsizedRouting):
        return routing.build(sizes, param_dtype=param_dtype, rngs=rngs)
    if not callable(routing):
        raise ValueError(
            f"routing must be a routing, such as create_routing('dynamic'), not {routing!r}"
        )
    return routing


def softmax_over_out(logits: jax.Array) -> jax.Array:
    """The softmax over the output capsules in sight: `[I, J]` -> `[I, J]`."""
    return jax.nn.softmax(logits, axis=-1)


def leaky(softmax: Softmax) -> Softmax:
    """A softmax in which a further logit, always zero, takes part; what it gets is lost.

    So an input capsule may belong to nothing above. An option of the authors' code of dynamic and
    of EM routing.

    Args:
        softmax: over whichever output capsules.
    """

    def softmax_with_orphans(logits: jax.Array) -> jax.Array:
        c = softmax(logits)
        # The sum of all exponentials is exp(logit) / c, wherever c is not too small to tell.
        best = jnp.argmax(logits, axis=-1, keepdims=True)
        logit, share = (jnp.take_along_axis(x, best, axis=-1) for x in (logits, c))
        total = logit - jnp.log(jnp.maximum(share, jnp.finfo(c.dtype).tiny))
        return c * jax.nn.sigmoid(total)

    return softmax_with_orphans


def asks_for(routing: Callable[..., Any]) -> frozenset[str]:
    """What a routing names in its signature beside votes and activations; of `OFFERS`.

    Raises:
        ValueError: it needs something that is not offered.
    """
    named = [
        parameter
        for parameter in inspect.signature(routing).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for parameter in named:
        if parameter.name not in OFFERS and parameter.default is inspect.Parameter.empty:
            raise ValueError(
                f"{name_of(routing)} asks for {parameter.name!r}; a routing may ask for: "
                f"{', '.join(OFFERS)}"
            )
    return frozenset(parameter.name for parameter in named) & frozenset(OFFERS)


def name_of(routing: Any) -> str:
    """What to call a routing in a message."""
    if isinstance(routing, functools.partial):
        return name_of(routing.func)
    return getattr(routing, "__name__", type(routing).__name__)


def route(
    routing: Routing, votes: jax.Array, activation: jax.Array, *, pose: jax.Array | None = None
) -> Routed:
    """Applies a routing to every example of a batch.

    Args:
        routing: the algorithm for one example.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.
        pose: `[..., I, K]`, for a routing that asks for it.

    Returns:
        `Routed` with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: the shapes do not belong together, the routing asks for a pose and there is
            none, or it returned something else than the protocol asks for.
    """
    return over_examples(functools.partial(route_one, routing), routing, votes, activation, pose)


def trace(
    routing: Any, votes: jax.Array, activation: jax.Array, *, pose: jax.Array | None = None
) -> Any:
    """What a routing computes on the way, for every example of a batch.

    Args:
        routing: one of the library's, or another that has `trace`.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.
        pose: `[..., I, K]`, for a routing that asks for it.

    Returns:
        What `routing.trace` returns, with the leading axes of `votes` on each array: a NamedTuple
        of arrays `[..., R, ...]`.

    Raises:
        ValueError: as `route`.
    """
    return over_examples(routing.trace, routing, votes, activation, pose)


def every_iteration(routing: Any) -> Callable[..., Routed]:
    """A function that is called like a routing and keeps what each of its iterations comes to.

    Args:
        routing: one of the library's, or another that has `trace` and `outcome`; of one that has
            not, what it comes to is its only iteration.

    Returns:
        `(votes [I, J, D], activation [I], **asked) -> Routed` of arrays `[R, ...]`.
    """

    def iterations(*arrays: jax.Array, **asked: Any) -> Routed:
        if not hasattr(routing, "trace"):
            return jax.tree.map(lambda array: array[None], route_one(routing, *arrays, **asked))
        return jax.vmap(routing.outcome)(routing.trace(*arrays, **asked))

    return iterations


def routed_iterations(
    routing: Any, votes: jax.Array, activation: jax.Array, *, pose: jax.Array | None = None
) -> Routed:
    """What each of the `R` iterations of a routing comes to, for every example of a batch.

    Args:
        routing: as of `every_iteration`.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.
        pose: `[..., I, K]`, for a routing that asks for it.

    Returns:
        Arrays `[..., R, J, D]`, `[..., R, J]` and `[..., R, I, J]`.

    Raises:
        ValueError: as `route`.
    """
    return over_examples(every_iteration(routing), routing, votes, activation, pose)


def over_examples(
    function: Callable[..., T],
    routing: Routing,
    votes: jax.Array,
    activation: jax.Array,
    pose: jax.Array | None,
    *others: Any,
) -> T:
    """Applies a function of one example, called like a routing, to every example of a batch.

    Args:
        function: takes votes, activation, what is in `others`, and what the routing asks for.
        routing: of which the function is a part.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.
        pose: `[..., I, K]`, for a routing that asks for it.
        *others: trees of arrays with the same leading axes.

    Raises:
        ValueError: the shapes do not belong together, or the routing asks for a pose and there is
            none.
    """
    if votes.ndim < 3 or activation.shape != votes.shape[:-2]:
        raise ValueError(
            "a routing takes votes [..., I, J, D] and activations [..., I], "
            f"not {votes.shape} and {activation.shape}"
        )
    if "pose" not in asks_for(routing):
        return map_examples(function, votes, activation, *others)
    if pose is None:
        raise ValueError(f"{name_of(routing)} asks for the poses of the input capsules")
    return map_examples(
        lambda votes, activation, pose, *others: function(votes, activation, *others, pose=pose),
        votes,
        activation,
        pose,
        *others,
    )


def route_one(routing: Routing, votes: jax.Array, activation: jax.Array, **asked: Any) -> Routed:
    """Routes one example and checks what comes out.

    Args:
        routing: the algorithm.
        votes: `[I, J, D]`.
        activation: `[I]`.
        **asked: what the routing asks for.

    Raises:
        ValueError: it returned something else than the protocol asks for.
    """
    routed = routing(votes, activation, **asked)
    name = name_of(routing)
    if not isinstance(routed, Routed):
        raise ValueError(f"{name} returned a {type(routed).__name__}, expected a Routed")
    n_in, n_out, dim = votes.shape
    expected = {"pose": (n_out, dim), "activation": (n_out,), "coupling": (n_in, n_out)}
    for field, shape in expected.items():
        returned = getattr(routed, field).shape
        if returned != shape:
            raise ValueError(f"{name} returned {field} of shape {returned}, expected {shape}")
    return routed


def map_examples(function: Callable[..., T], votes: jax.Array, *others: Any) -> T:
    """Applies a function of one example to every example of a batch.

    All leading axes become one, over which the function is mapped under the name `EXAMPLES`: a
    routing whose examples have something in common takes `jax.lax.pmean(x, EXAMPLES)`.

    Args:
        function: takes the votes `[I, J, D]` of one example and its part of each other array, and
            returns a tree of arrays; such as `DynamicRouting.trace`.
        votes: `[..., I, J, D]`.
        *others: further arrays, or trees of arrays, with the same leading axes.

    Returns:
        What the function returns, with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: the votes have too few axes, or another array has other leading axes.
    """
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
        lambda x: x.reshape(math.prod(leading), *x.shape[len(leading) :]), (votes, *others)
    )
    mapped = jax.vmap(function, axis_name=EXAMPLES)(*flat)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), mapped)
