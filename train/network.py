"""The network and the optimiser that a configuration describes."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import capsjax
from train.config import FitConfig
from train.errors import UserError


def build_model(
    config: FitConfig, image_shape: Sequence[int], num_classes: int, **routing_options: Any
) -> nnx.Module:
    """Makes the network, its parameters drawn from the configuration's seed.

    Args:
        config: what to make.
        image_shape: `(height, width, channels)`.
        num_classes: number of classes.
        **routing_options: arguments of the routing besides the configuration's.

    Raises:
        UserError: if a size does not fit the images, or an option does not exist.
    """
    require_precision(config)
    try:
        routing = capsjax.create_routing(
            config.routing,
            iterations=config.routing_iterations,
            **config.routing_options,
            **routing_options,
        )
        return capsjax.create_model(
            config.model,
            image_shape=tuple(image_shape),
            num_classes=num_classes,
            routing=routing,
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            rngs=nnx.Rngs(model_key(config)),
            **config.model_options,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"this network cannot be made: {error}.") from error


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


def learning_rate(config: FitConfig) -> optax.Schedule:
    """Exponential decay: falls smoothly by `decay_rate` every `decay_steps` steps."""
    return optax.exponential_decay(
        config.learning_rate, transition_steps=config.decay_steps, decay_rate=config.decay_rate
    )


def build_optimizer(config: FitConfig) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2014, arXiv:1412.6980) with the configuration's learning rate."""
    return optax.adam(learning_rate(config))


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
