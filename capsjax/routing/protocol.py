"""What a routing is: a map from the votes of one example to the capsules above."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from flax import nnx
from jax.typing import DTypeLike

EXAMPLES = "capsjax_examples"
"""The name of the axis over which `map_examples` maps: what a routing may reduce over."""

T = TypeVar("T")


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
    call; one without is a frozen dataclass.
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


@runtime_checkable
class UnsizedRouting(Protocol):
    """A routing with parameters, before it is known how many capsules it connects.

    It stands where a routing is asked for, and the layer that it is given to, which knows the
    sizes, builds the routing.
    """

    def build(
        self, in_capsules: int, out_capsules: int, *, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> Routing:
        """Makes the routing from `in_capsules` to `out_capsules` capsules.

        Args:
            in_capsules: number of capsules below, `I`.
            out_capsules: number of capsules above, `J`.
            param_dtype: dtype of the parameters.
            rngs: source of the initial values.
        """
        ...


def route(routing: Routing, votes: jax.Array, activation: jax.Array) -> Routed:
    """Applies a routing to every example of a batch.

    Args:
        routing: the algorithm for one example.
        votes: `[..., I, J, D]`.
        activation: `[..., I]` with the same leading axes.

    Returns:
        `Routed` with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: the shapes do not belong together, or the routing returned something else than
            the protocol asks for.
    """
    if votes.ndim < 3 or activation.shape != votes.shape[:-2]:
        raise ValueError(
            "a routing takes votes [..., I, J, D] and activations [..., I], "
            f"not {votes.shape} and {activation.shape}"
        )
    return map_examples(lambda *example: _routed(routing, *example), votes, activation)


def _routed(routing: Routing, votes: jax.Array, activation: jax.Array) -> Routed:
    """Routes one example and checks what comes out."""
    routed = routing(votes, activation)
    name = getattr(routing, "__name__", type(routing).__name__)
    if not isinstance(routed, Routed):
        raise ValueError(f"{name} returned a {type(routed).__name__}, expected a Routed")
    n_in, n_out, dim = votes.shape
    expected = {"pose": (n_out, dim), "activation": (n_out,), "coupling": (n_in, n_out)}
    for field, shape in expected.items():
        returned = getattr(routed, field).shape
        if returned != shape:
            raise ValueError(f"{name} returned {field} of shape {returned}, expected {shape}")
    return routed


def map_examples(function: Callable[..., T], votes: jax.Array, *others: jax.Array) -> T:
    """Applies a function of one example to every example of a batch.

    All leading axes become one, over which the function is mapped under the name `EXAMPLES`: a
    routing whose examples have something in common takes `jax.lax.pmean(x, EXAMPLES)`.

    Args:
        function: takes the votes `[I, J, D]` of one example and its part of each other array, and
            returns a tree of arrays; such as `DynamicRouting.trace`.
        votes: `[..., I, J, D]`.
        *others: further arrays with the same leading axes.

    Returns:
        What the function returns, with the leading axes of `votes` on each of its arrays.

    Raises:
        ValueError: the votes have too few axes, or another array has other leading axes.
    """
    if votes.ndim < 3:
        raise ValueError(f"votes must be [..., I, J, D], not {votes.shape}")
    leading = votes.shape[:-3]
    for other in others:
        if other.shape[: len(leading)] != leading:
            raise ValueError(
                f"votes of shape {votes.shape} have the leading axes {leading}, "
                f"an array of shape {other.shape} has not"
            )
    flat = [x.reshape(math.prod(leading), *x.shape[len(leading) :]) for x in (votes, *others)]
    mapped = jax.vmap(function, axis_name=EXAMPLES)(*flat)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), mapped)
