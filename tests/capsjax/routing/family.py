"""A routing of any name, ready to be run: a batch at once, forwards and backwards, permuted."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from capsjax import Routed, Sizes, create_routing, route
from capsjax.routing import sized
from capsjax.routing._base import needs_of
from tests.tolerance import assert_close

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


def built(settings: Any, sizes: Sizes, dtype: Any = "float32", seed: int = 0) -> Any:
    """The routing of some settings, made for the sizes."""
    return settings.build(sizes, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(seed))


def draw(batch: int, sizes: Sizes = SIZES, *, seed: int = 0) -> Inputs:
    """Inputs that a network could make."""
    random = np.random.default_rng(seed)
    I, K, J, D = sizes  # noqa: E741
    return Inputs(
        random.standard_normal((batch, I, J, D)).astype(np.float32),
        random.uniform(0.1, 0.9, (batch, I)).astype(np.float32),
        random.standard_normal((batch, I, K)).astype(np.float32),
    )


class Family:
    """A routing whose parameters are an argument.

    Attributes:
        parameters: drawn, then moved a little, so that what starts at zero is seen; a tree.
    """

    def __init__(self, name: str, sizes: Sizes = SIZES) -> None:
        routing = sized(create_routing(name), sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
        graphdef, parameters, rest = nnx.split(routing, nnx.Param, ...)
        random = np.random.default_rng(0)
        self.parameters = jax.tree.map(
            lambda x: np.asarray(x + 0.1 * random.standard_normal(x.shape), x.dtype),
            nnx.to_pure_dict(parameters),
        )
        self._bound = lambda parameters: nnx.merge(graphdef, parameters, rest)
        self._needs_pose = "pose" in needs_of(routing)
        self.forward = jax.jit(jax.vmap(self.call))
        self._program = jax.jit(jax.vmap(self._of_example))

    def call(self, parameters: Any, inputs: Inputs, method: str = "__call__") -> Any:
        """The call, or the trace, of one example."""
        pose = {"pose": inputs.pose} if self._needs_pose else {}
        return getattr(self._bound(parameters), method)(inputs.votes, inputs.activation, **pose)

    def route(self, parameters: Any, inputs: Inputs, **options: Any) -> Routed:
        """A batch by the library's `route`."""
        return route(self._bound(parameters), *inputs[:2], pose=inputs.pose, **options)

    def of_batch(self, inputs: Inputs) -> Any:
        """The parameters, for each example of a batch."""
        batch = len(inputs.votes)
        return jax.tree.map(lambda x: np.broadcast_to(x, (batch, *x.shape)), self.parameters)

    def run(self, inputs: Inputs) -> Outputs:
        """All of a batch, compiled."""
        return jax.device_get(self._program(self.of_batch(inputs), inputs))

    def loss(self, parameters: Any, inputs: Inputs) -> tuple[jax.Array, Routed]:
        """A sum of poses and activations, each with another weight."""
        routed = self.call(parameters, inputs)
        n, shape = routed.pose.size, routed.pose.shape
        weights = jnp.cos(jnp.arange(n, dtype=routed.pose.dtype)).reshape(shape)
        return jnp.sum(routed.pose * weights) + jnp.sum(routed.activation * weights[:, 0]), routed

    def _of_example(self, parameters: Any, inputs: Inputs) -> Outputs:
        gradient = jax.grad(self.loss, argnums=(0, 1), has_aux=True)
        (of_parameters, of_inputs), routed = gradient(parameters, inputs)
        trace = self.call(parameters, inputs, "trace")
        last = self._bound(parameters).outcome(jax.tree.map(lambda x: x[-1], trace))
        return Outputs(routed, last, (of_inputs, of_parameters))


family: Callable[..., Family] = functools.cache(Family)


def objective(pose: Any, activation: Any) -> Any:
    """A number in which each element of one example's outputs counts differently."""
    weights = np.cos(np.arange(pose.size, dtype=np.float64)).reshape(pose.shape)
    return (pose * weights).sum() + (activation * weights[:, 0]).sum()


def assert_traces_agree(ours: Any, expected: Any, terms: int, dtype: str = "float64") -> None:
    """Every field of a trace is that of another, element by element."""
    for name, array, reference in zip(ours._fields, ours, expected, strict=True):
        assert array.shape == reference.shape, name
        assert_close(array, reference, dtype=dtype, reduction_length=terms)


def assert_slopes_agree(
    ours: Callable[..., Routed],
    loop: Callable[..., tuple[Any, Any]],
    arguments: dict[str, Any],
    terms: int,
    fixed: dict[str, Any] | None = None,
) -> None:
    """Gradients in float64 are those of a loop in NumPy, along random directions.

    A step along the imaginary axis has a slope without the rounding of a difference, if all that
    the loop computes is analytic: no `abs`, no `norm`.

    Args:
        ours: a routing of one example, by names of arguments.
        loop: the same in NumPy -> poses and activations; takes complex numbers.
        arguments: where, arrays by their names.
        terms: longest sum on the way.
        fixed: other arguments of both.
    """
    fixed, step = fixed or {}, 1e-30
    with jax.enable_x64(True):
        wide = {name: jnp.asarray(x, jnp.float64) for name, x in arguments.items()}

        def scalar(wide: dict[str, Any]) -> jax.Array:
            routed = ours(**wide, **fixed)
            return objective(routed.pose, routed.activation)

        gradients = jax.device_get(jax.jit(jax.grad(scalar))(wide))
    for name, at in arguments.items():
        directions = np.random.default_rng(0).standard_normal((3, *np.shape(at)))
        moved = ({**arguments, **fixed, name: at + 1j * step * d} for d in directions)
        expected = [np.imag(objective(*loop(**each))) / step for each in moved]
        slopes = (directions * gradients[name]).reshape(3, -1).sum(1)
        assert_close(slopes, np.asarray(expected), reduction_length=terms)
