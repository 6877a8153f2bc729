"""One step of learning: a loss, its gradient, an update.

It runs inside of a mapped axis over which the batch is spread, whatever maps it: `learn.step` over
the devices, `study.compare` over one device and the seeds beside.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from train.data import Batch, example_keys, shift_examples
from train.learn.metrics import Mean, across_devices, masked_mean
from train.learn.objective import Objective, class_lengths, dead_share, measure

AXIS = "data"
"""The name of the axis over which a batch is spread."""

PyTree = Any


class TrainState(NamedTuple):
    """All that changes in training, and all that a checkpoint holds.

    Attributes:
        step: int32 scalar, the number of steps taken; it is also the position in the data.
        params: the model's parameters, nested dicts of arrays.
        model_state: its other variables (batch statistics), nested dicts of arrays.
        optimizer: the optimiser's state.
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
    """Updates that were not made because the loss or the gradient was not finite.

    Attributes:
        in_a_row: int32 scalar, up to the last step.
        total: int32 scalar, in all steps.
    """

    in_a_row: jax.Array
    total: jax.Array


def initial_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    averaged: bool = False,
) -> tuple[nnx.GraphDef, TrainState]:
    """Takes a new model apart into what stays and what changes.

    Args:
        model: the network.
        optimizer: what will train it.
        key: see `TrainState`.
        averaged: whether to keep an average of the parameters.
    """
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    pure = nnx.to_pure_dict(params)
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32),
        params=pure,
        model_state=nnx.to_pure_dict(model_state),
        optimizer=optimizer.init(pure),
        key=key,
        average=jax.tree.map(_wide_copy, pure) if averaged else None,
        skipped=Skipped(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
    )


def _wide_copy(array: jax.Array) -> jax.Array:
    return jnp.array(array, jnp.promote_types(array.dtype, jnp.float32))


def move_average(average: PyTree, params: PyTree, decay: float, count: jax.Array) -> PyTree:
    """The exponential moving average of parameters after one more update.

    It weighs the parameters after update `i` of `n` by `decay ** (n - i)`, and initial values not
    at all: Adam's moments with their bias corrected (arXiv:1412.6980, section 3), as `optax.ema`
    gives them.

    Args:
        average: the average so far, anything before the first update.
        params: the parameters after the update.
        decay: more than 0 and less than 1.
        count: n, the updates so far, this one included.
    """
    # 1 - decay**n, also where decay is almost 1.
    share = (1 - decay) / -jnp.expm1(count * math.log(decay))
    return jax.tree.map(
        lambda old, new: optax.incremental_update(new.astype(old.dtype), old, share),
        average,
        params,
    )


def length(tree: PyTree) -> jax.Array:
    """The Euclidean length of all arrays of a tree together, in float32 at least."""
    return optax.tree.norm(
        jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)
    )


def in_parts(
    function: Callable[[PyTree], tuple[PyTree, PyTree]], batch: PyTree, parts: int
) -> tuple[PyTree, PyTree]:
    """Calls a function on one part of a batch after the other.

    Args:
        function: part of the batch -> what is a mean over its examples, and what is a sum.
        batch: arrays `[b, ...]`.
        parts: a divisor of b.

    Returns:
        The same of the whole batch.
    """
    if parts == 1:
        return function(batch)
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], cut))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (means, sums), _ = lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None), nothing, cut
    )
    return jax.tree.map(lambda x: x / parts, means), sums


def make_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Any], Batch],
    objective: Objective,
    *,
    max_shift: int,
    image_dtype: jnp.dtype,
    micro_batches: int = 1,
    ema_decay: float | None = None,
) -> Callable[[TrainState, PyTree, PyTree], tuple[TrainState, dict[str, Mean]]]:
    """Makes a step of training, to be mapped over `AXIS`.

    A step whose loss or gradient is not finite changes nothing but the position in the data and the
    count of such steps.

    Args:
        graphdef: the model's structure.
        optimizer: turns mean gradients into updates.
        select: what makes examples of the constants and a batch, such as a feed's `select`.
        objective: what is minimised.
        max_shift: see `shift_examples`.
        image_dtype: dtype in which images enter the model and the loss.
        micro_batches: parts in which a share of a batch is taken. What the parts come to is as if
            each were on a device of its own.
        ema_decay: of the average of the parameters, if the state keeps one.

    Returns:
        `(state, constants, batch) -> (state, metrics)`, with this device's share of the batch
        and the metrics of the whole. Beside those of `measure` there are `dead_capsules` (see
        `dead_share`); `skipped`, 1 for a skipped update; and of an update that was made
        `gradient_norm` and `update_norm`, Euclidean lengths over all parameters.
    """

    def step(
        state: TrainState, constants: PyTree, batch: PyTree
    ) -> tuple[TrainState, dict[str, Mean]]:
        examples = select(constants, batch)
        count = len(examples.labels)
        positions = lax.axis_index(AXIS) * count + jnp.arange(count, dtype=jnp.int32)
        key = jax.random.fold_in(state.key, state.step)

        def loss(
            params: PyTree, batch: Batch, keys: jax.Array
        ) -> tuple[jax.Array, tuple[PyTree, dict[str, Mean]]]:
            # A copy: statistics of the batch change inside of the gradient.
            model = nnx.merge(graphdef, params, state.model_state, copy=True)
            labels = batch.labels
            output = objective.apply(model, batch.images, labels, training=True, keys=keys)
            losses = objective.losses(output, batch.targets, labels, state.step)
            model_state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            metrics = {**measure(output, losses, labels), "dead_capsules": class_lengths(output)}
            return jnp.mean(losses["loss"]), (model_state, metrics)

        def learn(part: tuple[Batch, jax.Array]) -> tuple[PyTree, dict[str, Mean]]:
            examples, positions = part
            shifted = shift_examples(key, examples, positions, max_shift)
            gradient, (model_state, metrics) = jax.grad(loss, has_aux=True)(
                state.params,
                objective.augment_batch(key, shifted, positions, image_dtype),
                example_keys(key, positions),
            )
            return (gradient, model_state), metrics

        means, metrics = in_parts(learn, (examples, positions), micro_batches)
        metrics = across_devices(metrics, AXIS)
        metrics["dead_capsules"] = dead_share(metrics["dead_capsules"])
        gradient, model_state = lax.pmean(means, AXIS)
        gradient_norm = length(gradient)
        is_finite = jnp.isfinite(metrics["loss"].total) & jnp.isfinite(gradient_norm)

        def update(old: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
            params, _, optimizer_state, average = old
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            params = optax.apply_updates(params, updates)
            if ema_decay is not None:
                average = move_average(average, params, ema_decay, state.step + 1)
            return (params, model_state, optimizer_state, average), length(updates)

        old = (state.params, state.model_state, state.optimizer, state.average)
        (params, model_state, optimizer_state, average), update_norm = lax.cond(
            is_finite, update, lambda old: (old, jnp.zeros_like(gradient_norm)), old
        )
        was_skipped = 1 - is_finite.astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            optimizer=optimizer_state,
            key=state.key,
            average=average,
            skipped=Skipped(
                in_a_row=was_skipped * (state.skipped.in_a_row + 1),
                total=state.skipped.total + was_skipped,
            ),
        )
        metrics |= {
            "skipped": masked_mean(was_skipped),
            "gradient_norm": masked_mean(gradient_norm, is_finite),
            "update_norm": masked_mean(update_norm, is_finite),
        }
        return new_state, metrics

    return step
