"""The state of training: what a step changes and a checkpoint holds."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from train.config.fit_config import FitConfig
from train.learn.network import build_model, model_key, structure, training_key
from train.system.errors import UserError, require_known

PyTree = Any

# A program that runs once need not be fast: nearly all of its time goes into machine code. What the
# other option leaves out would join two factors of a number into one, which rounds another way than
# if each operation were a program, as it was before.
COMPILED_FAST: dict[str, str | bool] = {
    "xla_backend_optimization_level": "1",
    "xla_disable_hlo_passes": "algsimp",
}


class TrainState(NamedTuple):
    """The values that change in training, which a checkpoint holds.

    Attributes:
        step: int32 scalar, the number of steps taken; it is also the position in the data.
        params: the model's parameters, nested dicts of arrays.
        model_state: its other variables (batch statistics), nested dicts of arrays.
        optimizer: the optimiser's state, of the parts that are not frozen.
        key: the random key that every step's keys are derived from.
        average: the moving average of the parameters, in float32 at least; None if none is kept.
            Statistics of batches have none: they are those of `params`.
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


def draw_states(
    config: FitConfig,
    image_shape: Sequence[int],
    num_classes: int,
    optimizer: optax.GradientTransformation,
    *,
    axis: str | None,
    seeds: Sequence[int],
) -> tuple[nnx.GraphDef, list[TrainState]]:
    """Makes a network, see `build_model`, and for each seed the state of its training.

    All are drawn by one program, which is compiled once.

    Raises:
        UserError: as `build_model` and `initial_state` do.
    """
    graphdef, _, draw = lower_draw(
        config, image_shape, num_classes, optimizer, axis=axis, seeds=seeds
    )
    return graphdef, draw()


def lower_draw(
    config: FitConfig,
    image_shape: Sequence[int],
    num_classes: int,
    optimizer: optax.GradientTransformation,
    *,
    axis: str | None,
    seeds: Sequence[int],
) -> tuple[nnx.GraphDef, TrainState, Callable[[], list[TrainState]]]:
    """What `draw_states` does, up to its program.

    Returns:
        The structure of the network, the shapes of a state, and what compiles the program and
        draws the states, on any thread.
    """
    graphdefs: list[nnx.GraphDef] = []

    def draw(of_model: jax.Array, of_training: jax.Array) -> TrainState:
        rngs = nnx.Rngs(of_model)
        model = build_model(config, image_shape, num_classes, axis, rngs)
        graphdef, state = initial_state(model, optimizer, config, of_training)
        graphdefs.append(graphdef)
        return state

    keys = [(model_key(own), training_key(own)) for own in (config.changed(seed=s) for s in seeds)]
    lowered = jax.jit(draw).lower(*keys[0])

    def states() -> list[TrainState]:
        program = lowered.compile(compiler_options=COMPILED_FAST)
        return [program(*pair) for pair in keys]

    return graphdefs[0], lowered.out_info, states


def initial_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    config: FitConfig,
    key: jax.Array | None = None,
) -> tuple[nnx.GraphDef, TrainState]:
    """Takes a new model apart into its structure and the state of its training.

    Its key is the one of the configuration's seed, unless there is another.

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
        key=training_key(config) if key is None else key,
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
