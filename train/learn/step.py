"""One step of training: a loss, its gradient, an update.

It runs inside of a mapped axis over which the batch is spread, whatever maps it: `learn.pmap` over
the devices, `study.compare` over one device and the seeds beside.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from capsjax import CapsNetOutput
from train.config.fit_config import FitConfig
from train.data import Batch
from train.learn.augment import example_keys
from train.learn.metrics import Mean, masked_mean
from train.learn.objective import Objective, class_lengths, dead_share, measure
from train.learn.training_state import PyTree, Skipped, TrainState, learned, wide

AXIS = "data"
"""The name of the axis over which a batch is spread."""


def move_average(average: PyTree, params: PyTree, decay: float, count: jax.Array) -> PyTree:
    """The exponential moving average of parameters after one more update.

    It weighs the parameters after update `i` of `n` by `decay ** (n - i)`, and initial values not
    at all: Adam's moments with their bias corrected (arXiv:1412.6980, section 3), as `optax.ema`
    gives them. Before the first update the average is anything; `count` is n, this one included.
    """
    # 1 - decay**n, also where decay is almost 1.
    share = (1 - decay) / -jnp.expm1(count * math.log(decay))
    return jax.tree.map(
        lambda old, new: optax.incremental_update(new.astype(old.dtype), old, share),
        average,
        params,
    )


def norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm over all arrays of a tree, in float32 at least."""
    return optax.tree.norm(jax.tree.map(lambda x: x.astype(wide(x)), tree))


def in_parts(
    function: Callable[[PyTree], tuple[PyTree, PyTree]], batch: PyTree, parts: int
) -> tuple[PyTree, PyTree]:
    """Calls a function on one part of a batch, arrays `[b, ...]`, after the other.

    The number of parts divides b. The function returns what is a mean over its examples, and what
    is a sum; so does this, of the whole batch.
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


def forward(
    graphdef: nnx.GraphDef,
    objective: Objective,
    state: TrainState,
    params: PyTree,
    batch: Batch,
    keys: jax.Array,
) -> tuple[nnx.Module, CapsNetOutput, dict[str, jax.Array]]:
    """Runs the network on a batch as a step of training does, `params` in the place of the state's.

    Images are as the network sees them in training, random keys `[batch]`. Returns the model with
    moved batch statistics, its output, and the terms of the loss `[batch]`.
    """
    # A copy: statistics of the batch change inside of the gradient.
    model = nnx.merge(graphdef, params, state.model_state, copy=True)
    output = objective.apply(model, batch.images, batch.labels, training=True, keys=keys)
    return model, output, objective.losses(output, batch.targets, batch.labels, state.step)


def make_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Any], Batch],
    config: FitConfig,
    class_weights: np.ndarray | None = None,
) -> Callable[[TrainState, PyTree, PyTree], tuple[TrainState, dict[str, Mean]]]:
    """Makes a step of training, to be mapped over `AXIS`.

    A step whose loss or gradient is not finite changes nothing but the position in the data and the
    count of such steps.

    `select` makes examples of the constants and a batch, such as a feed's. The loss of an example
    counts as much as `class_weights` `[classes]` say, see `Objective.weigh`. The configuration says
    what is minimised, how images are varied, in what dtype (`param_dtype`) they enter the model and
    the loss, and in how many parts (`micro_batches`) a share of a batch is taken: what the parts
    come to is as if each were on a device of its own. What is frozen stays bit for bit, also in the
    average: no gradient of it is computed, and nothing is added to it, not even zero.

    Returns:
        `(state, constants, batch) -> (state, metrics)`, with this device's share of the batch
        and the metrics of the whole. Beside those of `measure` there are `dead_capsules` (see
        `dead_share`); `skipped`, 1 for a skipped update; and of an update that was made
        `gradient_norm` and `update_norm`, Euclidean lengths over all parameters.
    """
    objective, dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)
    decay, freeze = config.optimizer.ema_decay, config.optimizer.freeze

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
            all_params = {**state.params, **params}
            model, output, losses = forward(graphdef, objective, state, all_params, batch, keys)
            model_state = learned(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))), freeze)
            metrics = measure(output, losses, batch.labels)
            metrics["dead_capsules"] = class_lengths(output)
            of_example = losses["loss"]
            if class_weights is not None:
                of_example *= jnp.asarray(class_weights, of_example.dtype)[batch.labels]
            return jnp.mean(of_example), (model_state, metrics)

        def learn(part: tuple[Batch, jax.Array]) -> tuple[PyTree, dict[str, Mean]]:
            examples, positions = part
            gradient, (model_state, metrics) = jax.grad(loss, has_aux=True)(
                learned(state.params, freeze),
                objective.augment(key, examples, positions, dtype),
                example_keys(key, positions),
            )
            return (gradient, model_state), metrics

        means, metrics = in_parts(learn, (examples, positions), config.schedule.micro_batches)
        metrics = lax.psum(metrics, AXIS)
        metrics["dead_capsules"] = dead_share(metrics["dead_capsules"])
        gradient, model_state = lax.pmean(means, AXIS)
        gradient_norm = norm(gradient)
        is_finite = jnp.isfinite(metrics["loss"].total) & jnp.isfinite(gradient_norm)

        def update(old: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
            params, statistics, optimizer_state, average = old
            before = learned(params, freeze)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, before)
            after = optax.apply_updates(before, updates)
            if decay is not None:
                made = state.step - state.skipped.total
                moved = move_average(learned(average, freeze), after, decay, made + 1)
                average = {**average, **moved}
            new = {**params, **after}, {**statistics, **model_state}, optimizer_state, average
            return new, norm(updates)

        # Not optax.apply_if_finite: it does not see the loss, moves batch statistics and average,
        # and makes the update that is one too many.
        old = (state.params, state.model_state, state.optimizer, state.average)
        (params, model_state, optimizer_state, average), update_norm = lax.cond(
            is_finite, update, lambda old: (old, jnp.zeros_like(gradient_norm)), old
        )
        was_skipped = 1 - is_finite.astype(jnp.int32)
        metrics |= {
            "skipped": masked_mean(was_skipped),
            "gradient_norm": masked_mean(gradient_norm, is_finite),
            "update_norm": masked_mean(update_norm, is_finite),
        }
        skipped = Skipped(
            in_a_row=was_skipped * (state.skipped.in_a_row + 1),
            total=state.skipped.total + was_skipped,
        )
        new_state = TrainState(
            state.step + 1, params, model_state, optimizer_state, state.key, average, skipped
        )
        return new_state, metrics

    return step
