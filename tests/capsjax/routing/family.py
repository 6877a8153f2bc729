"""A routing of any name, ready to be run: on one example, on a batch, backwards, permuted."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import Routed, Sizes, create_routing
from capsjax.routing._base import asks_for, sized

SIZES = Sizes(in_capsules=6, in_dim=4, out_capsules=3, out_dim=16)
"""All different, so that an axis is known by its size."""


class Inputs(NamedTuple):
    """What a batch of routings starts from.

    Attributes:
        votes: `[B, I, J, D]`.
        activation: `[B, I]`, from 0 to 1.
        pose: `[B, I, K]`.
    """

    votes: Any
    activation: Any
    pose: Any


class Outputs(NamedTuple):
    """What comes out of a batch, and what goes back.

    Attributes:
        routed: of the batch.
        last: the last iteration of the trace, turned into a `Routed`.
        gradients: of a weighted sum of poses and activations of each example, with respect to
            inputs and parameters.
    """

    routed: Routed
    last: Routed
    gradients: tuple[Inputs, Any]


def draw(batch: int, sizes: Sizes = SIZES, *, seed: int = 0, scale: float = 1.0) -> Inputs:
    """Inputs that a network could make: votes of about the size `scale`."""
    random = np.random.default_rng(seed)
    I, K, J, D = sizes  # noqa: E741
    return Inputs(
        (scale * random.standard_normal((batch, I, J, D))).astype(np.float32),
        random.uniform(0.1, 0.9, (batch, I)).astype(np.float32),
        random.standard_normal((batch, I, K)).astype(np.float32),
    )


class Family(NamedTuple):
    """A routing whose parameters are an argument.

    Attributes:
        parameters: drawn, then moved a little, so that what starts at zero is seen; a tree.
        call: `(parameters, votes, activation, pose)` of one example -> `Routed`.
        trace: the same -> what the routing's `trace` returns.
        outcome: of the routing.
    """

    parameters: Any
    call: Callable[..., Routed]
    trace: Callable[..., Any]
    outcome: Callable[[Any], Routed]


@functools.cache
def member(name: str, sizes: Sizes = SIZES, dtype: str = "float32", **options: Any) -> Family:
    """The routing of a name, made for the sizes."""
    routing = create_routing(name, **options)
    routing = sized(routing, sizes, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    graphdef, parameters, rest = nnx.split(routing, nnx.Param, ...)
    random = np.random.default_rng(0)
    parameters = jax.tree.map(
        lambda x: x + jnp.asarray(0.1 * random.standard_normal(x.shape), x.dtype),
        nnx.to_pure_dict(parameters),
    )
    wants_pose = "pose" in asks_for(routing)

    def bound(parameters: Any) -> Any:
        return nnx.merge(graphdef, parameters, rest)

    def asked(pose: Any) -> dict[str, Any]:
        return {"pose": pose} if wants_pose else {}

    return Family(
        parameters,
        lambda p, votes, activation, pose: bound(p)(votes, activation, **asked(pose)),
        lambda p, votes, activation, pose: bound(p).trace(votes, activation, **asked(pose)),
        routing.outcome,
    )


def weighted(routed: Routed) -> jax.Array:
    """A sum of poses and activations, each with another weight."""
    n = routed.pose.size
    weights = jnp.cos(jnp.arange(n, dtype=routed.pose.dtype)).reshape(routed.pose.shape)
    return jnp.sum(routed.pose * weights) + jnp.sum(routed.activation * weights[:, 0])


@functools.cache
def program(name: str, sizes: Sizes = SIZES, **options: Any) -> Callable[..., Outputs]:
    """`(parameters, inputs) -> Outputs` of a batch, compiled."""
    family = member(name, sizes, **options)

    def of_example(parameters: Any, inputs: Inputs) -> Outputs:
        def loss(parameters: Any, inputs: Inputs) -> tuple[jax.Array, Routed]:
            routed = family.call(parameters, *inputs)
            return weighted(routed), routed

        (of_parameters, of_inputs), routed = jax.grad(loss, argnums=(0, 1), has_aux=True)(
            parameters, inputs
        )
        trace = family.trace(parameters, *inputs)
        last = family.outcome(jax.tree.map(lambda x: x[-1], trace))
        return Outputs(routed, last, (of_inputs, of_parameters))

    return jax.jit(jax.vmap(of_example, in_axes=(None, 0)))


def run(name: str, inputs: Inputs, parameters: Any = None) -> Outputs:
    """Runs the routing of a name with its default options on a batch."""
    parameters = member(name).parameters if parameters is None else parameters
    return program(name)(parameters, inputs)


def run_wide(name: str, inputs: Inputs, parameters: Any = None) -> Outputs:
    """The same in float64: what must hold exactly is not lost in what rounding adds to it."""
    parameters = member(name).parameters if parameters is None else parameters
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (parameters, inputs))
        return jax.device_get(program(name)(*wide))


def permuted(tree: Any, size: int, order: np.ndarray) -> Any:
    """A tree whose arrays are reordered along the axis of that size, where they have one."""

    def turn(array: Any) -> Any:
        for axis in [axis for axis, n in enumerate(array.shape) if n == size]:
            array = jnp.take(array, order, axis=axis)
        return array

    return jax.tree.map(turn, tree)
