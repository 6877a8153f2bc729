"""The network that a configuration describes."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from train.config import FitConfig
from train.errors import UserError
from train.machine import physical_bytes
from train.own_routing import make_routing, takes_iterations


def build_model(
    config: FitConfig, image_shape: Sequence[int], num_classes: int, axis: str | None = None
) -> nnx.Module:
    """Makes the network, its parameters drawn from the configuration's seed.

    Args:
        config: what to make.
        image_shape: `(height, width, channels)`.
        num_classes: number of classes.
        axis: the mapped axis over which a batch is spread, for a routing whose examples share
            their logits; None where a batch is in one piece.

    Raises:
        UserError: if a size does not fit the images, or an option does not exist.
    """
    require_precision(config)
    spread = axis is not None and config.routing_options.get("shared_logits")
    shared = {"shared_axes": (axis,)} if spread else {}
    remat = {"remat": True} if config.remat else {}
    try:
        iterations = (
            {"iterations": config.routing_iterations} if takes_iterations(config.routing) else {}
        )
        routing = make_routing(config.routing, **iterations, **config.routing_options, **shared)
        return capsjax.create_model(
            config.model,
            image_shape=tuple(image_shape),
            num_classes=num_classes,
            routing=routing,
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            rngs=nnx.Rngs(model_key(config)),
            **remat,
            **config.model_options,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"this network cannot be made: {error}.") from error


def require_room(config: FitConfig, image_shape: Sequence[int], num_classes: int) -> None:
    """Refuses a network whose parameters alone are more than this machine's memory holds.

    That is for a configuration that comes from a file, which may be damaged or somebody's joke.

    Raises:
        UserError: if they are, or the network cannot be made.
    """
    shapes = nnx.eval_shape(lambda: build_model(config, image_shape, num_classes))
    promised = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(nnx.state(shapes)))
    if promised > physical_bytes():
        raise UserError(
            f"this network has parameters of {promised:,} bytes, more than the memory of this "
            "machine: see where its configuration comes from."
        )


def structure(config: FitConfig, image_shape: Sequence[int], num_classes: int) -> nnx.GraphDef:
    """The structure of the network where a batch is in one piece, without any values."""
    return nnx.graphdef(nnx.eval_shape(lambda: build_model(config, image_shape, num_classes)))


def require_precision(config: FitConfig) -> None:
    """Refuses a dtype that JAX would silently replace by a narrower one.

    Raises:
        UserError: on float64 where JAX's x64 mode is off.
    """
    if "float64" in (config.dtype, config.param_dtype) and not jax.config.read("jax_enable_x64"):
        raise UserError(
            "float64 needs JAX's x64 mode: set the environment variable JAX_ENABLE_X64=1."
        )


def model_key(config: FitConfig) -> jax.Array:
    """The random key of the initial values."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)


def training_key(config: FitConfig) -> jax.Array:
    """The random key of the training steps."""
    return jax.random.fold_in(jax.random.key(config.seed), 1)


def count_parameters(params: Any) -> int:
    """Number of values in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def out_of_memory_is_bad_input(batch_size: int) -> Iterator[None]:
    """Tells that a batch does not fit in one sentence.

    Raises:
        UserError: where the body runs out of a device's memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"a batch of {batch_size} does not fit in the memory of the devices: choose a smaller "
            "--batch-size or more --devices."
        ) from error
