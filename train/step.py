"""The pmapped training and evaluation steps: the only file that says pmap.

The state is one copy without a device axis, replicated over the devices (`in_axes=None`,
`out_axes=None`); batches are cut along a leading device axis. `out_axes=None` takes the first
device's value on trust: everything that leaves a step is either reduced over the axis or computed
from reduced values alone.

Where several processes train, the axis runs over the devices of all of them, and what goes into a
step and comes out of it is each process's own: a copy of the state on its devices, and the part of
the batch that belongs to them (`own_part`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data import example_keys, shift_batch
from train.errors import UserError
from train.metrics import Mean, across_devices, masked_mean
from train.objective import Objective, class_lengths, coupling_entropy, dead_share, measure

AXIS = "data"
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


class Evaluated(NamedTuple):
    """What the evaluation step returns for one global batch.

    Attributes:
        metrics: sums and counts over the examples of the mask, the same on every device.
        predictions: int32 `[batch]`, the same on every device.
    """

    metrics: dict[str, Mean]
    predictions: jax.Array


def data_mesh(batch_size: int, devices: int | None = None, micro_batches: int = 1) -> Mesh:
    """The devices that share a batch, along one axis, those of a process side by side.

    Args:
        batch_size: images in a step, over all devices of all processes.
        devices: how many devices of each process to use; all if not given.
        micro_batches: parts in which each takes its share of the batch.

    Raises:
        UserError: if there are fewer devices, or the batch cannot be shared out equally.
    """
    present = len(jax.local_devices())
    count = present if devices is None else devices
    if not 1 <= count <= present:
        raise UserError(f"--devices is {count}, but this machine has 1 to {present} to offer.")
    chosen = [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process)[:count]
    ]
    total = len(chosen)
    if batch_size % total:
        raise UserError(
            f"a batch of {batch_size} cannot be shared equally by {total} devices: choose a batch "
            f"size that is a multiple of {total}, or another number of --devices."
        )
    if batch_size // total % micro_batches:
        raise UserError(
            f"a device's {batch_size // total} images of a batch cannot be cut into "
            f"{micro_batches} equal --micro-batches: choose a divisor."
        )
    return Mesh(np.asarray(chosen), (AXIS,))


def own_part(batch_size: int, mesh: Mesh) -> slice:
    """The examples of a global batch that are computed on devices of this process."""
    positions = [
        i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()
    ]
    each = batch_size // mesh.devices.size
    return slice(positions[0] * each, (positions[-1] + 1) * each)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a copy of every array on every device of this process, as the steps expect it."""
    return jax.device_put(tree, NamedSharding(mesh.local_mesh, PartitionSpec()))


def split_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Cuts host arrays `[part of this process, ...]` into `[devices, part / devices, ...]`."""
    count = len(mesh.local_devices)
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)


def same_wishes(wishes: Sequence[int], mesh: Mesh) -> np.ndarray:
    """The wishes of this process, for each of its devices."""
    return np.tile(np.asarray(wishes, np.int32), (len(mesh.local_devices), 1))


def stack_batches(batches: Sequence[PyTree], capacity: int, mesh: Mesh) -> PyTree:
    """Puts the batches of several steps together for one dispatch.

    Args:
        batches: at least one; host arrays `[part of this process, ...]`, all alike.
        capacity: steps there is room for; what the batches do not fill is zero and never looked at.
        mesh: the devices.

    Returns:
        Host arrays `[devices of this process, capacity, batch / devices, ...]`.

    Raises:
        ValueError: if there are more batches than room.
    """
    if len(batches) > capacity:
        raise ValueError(f"{len(batches)} batches are more than the {capacity} there is room for.")
    count = len(mesh.local_devices)

    def stack(*arrays: np.ndarray) -> np.ndarray:
        first = arrays[0]
        shape = (count, capacity, len(first) // count, *first.shape[1:])
        stacked = np.zeros(shape, first.dtype)
        for step, array in enumerate(arrays):
            stacked[:, step] = array.reshape(count, *shape[2:])
        return stacked

    return jax.tree.map(stack, *batches)


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


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Mapping], tuple[jax.Array, jax.Array]],
    objective: Objective,
    *,
    max_shift: int,
    image_dtype: jnp.dtype,
    mesh: Mesh,
    micro_batches: int = 1,
    ema_decay: float | None = None,
    max_skipped: int | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Mean], jax.Array]]:
    """Makes steps of training on all devices of the mesh, any number in one dispatch.

    The number of steps is a value, not a part of the program: the same program takes one step or
    as many as there is room for, so that the results do not depend, in any bit, on how the steps
    of a run are cut into dispatches.

    A step whose loss or gradient is not finite changes nothing but the position in the data and the
    count of such steps.

    Args:
        graphdef: the model's structure.
        optimizer: turns mean gradients into updates.
        select: the feed's `select`.
        objective: what is minimised.
        max_shift: see `shift_batch`.
        image_dtype: dtype in which images enter the model and the loss.
        mesh: the devices.
        micro_batches: parts in which a device takes its share of a batch. What the parts come to
            is as if each were on a device of its own.
        ema_decay: of the average of the parameters, if the state keeps one.
        max_skipped: updates that may be skipped in a row. After one more no step is taken, whatever
            is sent, so that the state stays as it was; None for any number.

    Returns:
        `(state, feed.constants, stack_batches(batches), number of batches, same_wishes(wishes)) ->
        (state, metrics, agreed)`. The state is donated. Each metric is a `Mean` of arrays
        `[capacity]`, an entry for each step and zero where no step was taken. Beside those of
        `measure` there are `dead_capsules` (see `dead_share`); `skipped`, 1 for a skipped update;
        and of the updates that were made `gradient_norm` and `update_norm`, Euclidean lengths over
        all parameters. `agreed`, int32, is the largest of each wish that any process had.
    """

    @jax.jit  # Traced once, although `steps` asks for its shapes and for its results.
    def step(
        state: TrainState, constants: PyTree, batch: PyTree
    ) -> tuple[TrainState, dict[str, Mean]]:
        images, labels = select(constants, batch)
        positions = lax.axis_index(AXIS) * len(labels) + jnp.arange(len(labels), dtype=jnp.int32)
        key = jax.random.fold_in(state.key, state.step)

        def loss(
            params: PyTree, images: jax.Array, labels: jax.Array, keys: jax.Array
        ) -> tuple[jax.Array, tuple[PyTree, dict[str, Mean]]]:
            # A copy: statistics of the batch change inside of the gradient.
            model = nnx.merge(graphdef, params, state.model_state, copy=True)
            output = objective.apply(model, images, labels, training=True, keys=keys)
            losses = objective.losses(output, images, labels, state.step)
            model_state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            metrics = {**measure(output, losses, labels), "dead_capsules": class_lengths(output)}
            return jnp.mean(losses["loss"]), (model_state, metrics)

        def learn(examples: tuple[jax.Array, ...]) -> tuple[PyTree, dict[str, Mean]]:
            images, labels, positions = examples
            shifted = shift_batch(key, images, positions, max_shift)
            images = objective.normalise(shifted, image_dtype)
            gradient, (model_state, metrics) = jax.grad(loss, has_aux=True)(
                state.params, images, labels, example_keys(key, positions)
            )
            return (gradient, model_state), metrics

        means, metrics = in_parts(learn, (images, labels, positions), micro_batches)
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

    def steps(
        state: TrainState,
        constants: PyTree,
        batches: PyTree,
        count: jax.Array,
        wishes: jax.Array,
    ) -> tuple[TrainState, dict[str, Mean], jax.Array]:
        def batch_of(index: jax.Array) -> PyTree:
            return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, 0, False), batches)

        def goes_on(carry: tuple[jax.Array, TrainState, PyTree]) -> jax.Array:
            index, state, _ = carry
            if max_skipped is None:
                return index < count
            return (index < count) & (state.skipped.in_a_row <= max_skipped)

        def body(
            carry: tuple[jax.Array, TrainState, PyTree],
        ) -> tuple[jax.Array, TrainState, PyTree]:
            index, state, taken = carry
            state, metrics = step(state, constants, batch_of(index))
            taken = jax.tree.map(
                lambda all, one: lax.dynamic_update_index_in_dim(all, one, index, 0),
                taken,
                metrics,
            )
            return index + 1, state, taken

        first = jnp.zeros((), jnp.int32)
        capacity = len(jax.tree.leaves(batches)[0])
        _, metrics = jax.eval_shape(step, state, constants, batch_of(first))
        nothing = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), metrics)
        _, state, metrics = lax.while_loop(goes_on, body, (first, state, nothing))
        return state, metrics, lax.pmax(wishes, AXIS)

    return jax.pmap(
        steps,
        axis_name=AXIS,
        in_axes=(None, None, 0, None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )


def make_evaluation_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    *,
    image_dtype: jnp.dtype,
    mesh: Mesh,
) -> Callable[[PyTree, PyTree, PyTree], Evaluated]:
    """Makes one step of evaluation on all devices of the mesh.

    Args:
        graphdef: the model's structure.
        objective: what is measured.
        image_dtype: dtype in which images enter the model and the loss.
        mesh: the devices.

    Returns:
        `(params, model_state, split_batch((images, labels, mask))) -> Evaluated`.
    """

    def step(params: PyTree, model_state: PyTree, batch: PyTree) -> Evaluated:
        images, labels, mask = batch
        images = objective.normalise(images, image_dtype)
        model = nnx.merge(graphdef, params, model_state)
        output = objective.apply(model, images, labels, training=False)
        losses = objective.losses(output, images, labels)
        # Not in training: where votes are recomputed, the coupling is one more pass over them.
        metrics = measure(output, losses, labels, mask)
        if output.coupling is not None:
            metrics["coupling_entropy"] = coupling_entropy(output, mask)
        metrics = across_devices(metrics, AXIS)
        predictions = jnp.argmax(output.lengths, axis=-1).astype(jnp.int32)
        return Evaluated(metrics, lax.all_gather(predictions, AXIS, tiled=True))

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )
