"""Steps of training and of scoring on all devices: the only file that calls pmap.

What a step of training computes is in `step.py`, what it changes in `training_state.py`.

The state is one copy without a device axis, replicated over the devices (`in_axes=None`,
`out_axes=None`); batches are cut along a leading device axis. `out_axes=None` takes the first
device's value on trust: everything that leaves a step is either reduced over the axis or computed
from reduced values alone.

Where several processes train, the axis runs over the devices of all of them, and what goes into a
step and comes out of it is each process's own: a copy of the state on its devices, and the part of
the batch that belongs to them (`processes.own_part`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.config.fit_config import FitConfig
from train.data import Batch
from train.learn.metrics import Mean
from train.learn.objective import (
    TOP,
    Objective,
    coupling_entropy,
    measure,
    measure_top,
    predict,
)
from train.learn.step import AXIS, make_step
from train.learn.training_state import PyTree, TrainState
from train.system.errors import UserError

Carry = tuple[jax.Array, TrainState, PyTree]


def data_mesh(batch_size: int, devices: int | None = None, micro_batches: int = 1) -> Mesh:
    """The devices that share a batch, along one axis, those of a process side by side.

    So many devices of each process share it, all if not given, and each takes its share of the
    batch of all processes in so many parts.

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


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a copy of every array on every device of this process, as the steps expect it."""
    return jax.device_put(tree, NamedSharding(mesh.local_mesh, PartitionSpec()))


def split_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Cuts host arrays `[part of this process, ...]` into `[devices, part / devices, ...]`."""
    count = len(mesh.local_devices)
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)


def make_dispatch(
    batches: Sequence[PyTree], capacity: int, mesh: Mesh, *, stop: bool = False
) -> tuple[PyTree, np.ndarray, np.ndarray]:
    """Stacks the batches of several steps, for one call of the training step.

    The batches, one at least, are host arrays `[part of this process, ...]`, all alike. What they
    do not fill of the capacity, the steps there is room for, is zero and never read.

    Returns:
        Host arrays `[devices of this process, capacity, batch / devices, ...]`, the number of
        batches, and `stop` for each device of this process.

    Raises:
        ValueError: if there are more batches than room.
    """
    if len(batches) > capacity:
        raise ValueError(f"{len(batches)} batches are more than the {capacity} there is room for.")

    def stack(*arrays: np.ndarray) -> np.ndarray:
        first = arrays[0]
        stacked = np.zeros((len(first), capacity, *first.shape[1:]), first.dtype)
        for step, array in enumerate(arrays):
            stacked[:, step] = array
        return stacked

    stacked = jax.tree.map(stack, *(split_batch(batch, mesh) for batch in batches))
    devices = len(mesh.local_devices)
    return stacked, np.asarray(len(batches), np.int32), np.full(devices, stop, np.int32)


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Any], Batch],
    config: FitConfig,
    mesh: Mesh,
    class_weights: np.ndarray | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Mean], jax.Array]]:
    """Makes steps of training on all devices of the mesh, any number in one dispatch.

    The number of steps is a value, not a part of the program: the same program takes one step or
    as many as there is room for, so that the results do not depend, in any bit, on how the steps
    of a run are cut into dispatches.

    The arguments are those of `make_step`. After one skipped update in a row more than
    `max_skipped` no step is taken, whatever is sent, so that the state stays as it was.

    Returns:
        `(state, feed.constants, *make_dispatch(batches, ...)) -> (state, metrics, stop)`. The state
        is donated. Each metric is a `Mean` of arrays `[capacity]`, an entry for each step and zero
        where no step was taken. `stop`, int32, is 1 if any process was asked to stop.
    """
    # Traced once, although `steps` asks for its shapes and for its results.
    step = jax.jit(make_step(graphdef, optimizer, select, config, class_weights))
    max_skipped = config.optimizer.max_skipped

    def steps(
        state: TrainState, constants: PyTree, batches: PyTree, count: jax.Array, stop: jax.Array
    ) -> tuple[TrainState, dict[str, Mean], jax.Array]:
        def batch_of(index: jax.Array) -> PyTree:
            return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, 0, False), batches)

        def goes_on(carry: Carry) -> jax.Array:
            index, state, _ = carry
            return (index < count) & (state.skipped.in_a_row <= max_skipped)

        def body(carry: Carry) -> Carry:
            index, state, taken = carry
            state, metrics = step(state, constants, batch_of(index))
            put = functools.partial(lax.dynamic_update_index_in_dim, index=index, axis=0)
            return index + 1, state, jax.tree.map(put, taken, metrics)

        first = jnp.zeros((), jnp.int32)
        capacity = len(jax.tree.leaves(batches)[0])
        _, metrics = jax.eval_shape(step, state, constants, batch_of(first))
        nothing = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), metrics)
        _, state, metrics = lax.while_loop(goes_on, body, (first, state, nothing))
        return state, metrics, lax.pmax(stop, AXIS)

    return jax.pmap(
        steps,
        axis_name=AXIS,
        in_axes=(None, None, 0, None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )


def make_scoring_step(
    graphdef: nnx.GraphDef, config: FitConfig, mesh: Mesh, *, top: int = TOP
) -> Callable[[PyTree, PyTree, PyTree], tuple[dict[str, Mean], jax.Array]]:
    """Makes a step that measures a network, on all devices of the mesh.

    Images enter the model in the dtype `param_dtype` of the configuration; `top` is as of
    `measure_top`.

    Returns:
        `(params, model_state, split_batch((batch, mask))) -> (metrics, predictions)`, with batch
        and mask as of `padded_batches`: sums and counts over the examples of the mask, and int32
        `[batch]` or `[batch, k]` (see `objective.predict`), the same on every device.
    """
    objective, dtype = Objective.of(config), jnp.dtype(config.model.param_dtype)

    def step(
        params: PyTree, model_state: PyTree, batch: PyTree
    ) -> tuple[dict[str, Mean], jax.Array]:
        examples, mask = batch
        examples, labels = objective.normalise_batch(examples, dtype), examples.labels
        model = nnx.merge(graphdef, params, model_state)
        output = objective.apply(model, examples.images, labels, training=False)
        losses = objective.losses(output, examples.targets, labels)
        # Not in training: where votes are recomputed, the coupling is one more pass over them.
        metrics = measure(output, losses, labels, mask)
        metrics |= measure_top(output, labels, mask, top=top)
        if output.coupling is not None:
            metrics["coupling_entropy"] = coupling_entropy(output, mask)
        predictions = lax.all_gather(predict(output.lengths, labels), AXIS, tiled=True)
        return lax.psum(metrics, AXIS), predictions

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )
