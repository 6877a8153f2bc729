"""The state of training: what a step changes and a checkpoint holds."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from train.config.fit_config import FitConfig
from train.learn.network import structure, training_key
from train.system.errors import UserError, require_known

PyTree = Any


class TrainState(NamedTuple):
    """The values that change in training, which a checkpoint holds.

    Attributes:
        step: int32 scalar, the number of steps taken; it is also the position in the data.
        params: the model's parameters, nested dicts of arrays.
        model_state: its other variables (batch statistics), nested dicts of arrays.
        optimizer: the optimiser's state, of the parts that are not frozen.
        key: the random key that every step's keys are derived from.
        average: the moving average of the parameters, in float32 at least; None if none is kept.
        skipped: the updates that were not made.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    optimizer: PyTree
    key: jax.Array
    average: PyTree
    skipped: "Skipped"

    @property
    def weights(self) -> PyTree:
        """The parameters to measure and to use: their average, where one is kept."""
        return self.params if self.average is None else self.average


class Skipped(NamedTuple):
    """Updates that were not made because the loss or the gradient was not finite; int32 scalars."""

    in_a_row: jax.Array  # up to the last step
    total: jax.Array


def initial_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, config: FitConfig
) -> tuple[nnx.GraphDef, TrainState]:
    """Takes a new model apart into its structure and the state of its training.

    Raises:
        UserError: the configuration freezes a part that the model does not have, or all of it.
    """
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    pure = nnx.to_pure_dict(params)
    _require_parts(pure, config)
    averaged = config.optimizer.ema_decay is not None
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32),
        params=pure,
        model_state=nnx.to_pure_dict(model_state),
        optimizer=optimizer.init(learned(pure, config.optimizer.freeze)),
        key=training_key(config),
        average=jax.tree.map(lambda x: jnp.array(x, wide(x)), pure) if averaged else None,
        skipped=Skipped(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
    )


def learned(parts: PyTree, freeze: Collection[str]) -> PyTree:
    """Of values by the parts of a network, its `params` or `model_state`, those that change."""
    return {name: values for name, values in parts.items() if name not in freeze}


def _require_parts(params: PyTree, config: FitConfig) -> None:
    freeze = config.optimizer.freeze
    require_known("part of the network in --freeze", freeze, sorted(params))
    if not learned(params, freeze):
        raise UserError(
            f"--freeze has all parts of the network, {', '.join(sorted(params))}: leave out what "
            "is to be trained."
        )


def wide(array: jax.Array) -> jnp.dtype:
    """The dtype of an array, or float32 where that is finer."""
    return jnp.promote_types(array.dtype, jnp.float32)


def trained_model(
    config: FitConfig, image_shape: Sequence[int], num_classes: int, state: TrainState
) -> nnx.Module:
    """The network with the weights of a state, for batches in one piece.

    It normalises a batch as it has learned to.
    """
    graphdef = structure(config, image_shape, num_classes)
    model = nnx.merge(graphdef, state.weights, state.model_state)
    model.eval()
    return model
