"""A batch spread over two devices, in the ways of JAX that know how each array is spread."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

MODES = ("shard_map", "explicit")
"""`jax.shard_map`, and the explicit axes of `jax.make_mesh`; both with all defaults."""


def gradient(
    loss: Callable[..., Any], mode: str, parameters: Any, batch: Any
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """The gradient of a sum over a batch, `loss(parameters, batch)`, by the parameters.

    Returns it as a function, to be traced or called, and its arguments on the devices.
    """
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    everywhere, spread = PartitionSpec(), PartitionSpec("data")
    function = jax.grad(loss)
    if mode == "shard_map":
        # Of parameters that are the same on all devices, the gradient is the sum over them.
        function = jax.shard_map(
            function, mesh=mesh, in_specs=(everywhere, spread), out_specs=everywhere
        )
    shardings = tuple(NamedSharding(mesh, spec) for spec in (everywhere, spread))
    return jax.jit(function), jax.device_put((parameters, batch), shardings)
