"""The pmapped training and evaluation steps: the only file that says pmap.

The state is one copy without a device axis, replicated over the devices (`in_axes=None`,
`out_axes=None`); batches are cut along a leading device axis. `out_axes=None` takes the first
device's value on trust: everything that leaves a step is either reduced over the axis or computed
from reduced values alone.

Where several processes train, the axis runs over the devices of all of them, and what goes into a
step and comes out of it is each process's own: a copy of the state on its devices, and the part of
the batch that belongs to them (`own_part`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data import Batch
from train.learn.metrics import Mean, across_devices
from train.learn.objective import Objective, coupling_entropy, measure, predict
from train.learn.update import AXIS, PyTree, TrainState, make_step
from train.system.errors import UserError


class Evaluated(NamedTuple):
    """What the evaluation step returns for one global batch.

    Attributes:
        metrics: sums and counts over the examples of the mask, the same on every device.
        predictions: int32 `[batch]`, or `[batch, k]` (see `objective.predict`), the same on every
            device.
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


def for_own_devices(wishes: Sequence[int], mesh: Mesh) -> np.ndarray:
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


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Any], Batch],
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

    Args:
        graphdef: the model's structure.
        optimizer: see `make_step`, and so are those not named here.
        select: see there.
        objective: see there.
        max_shift: see there.
        image_dtype: see there.
        mesh: the devices.
        micro_batches: see there.
        ema_decay: see there.
        max_skipped: updates that may be skipped in a row. After one more no step is taken, whatever
            is sent, so that the state stays as it was; None for any number.

    Returns:
        `(state, feed.constants, stack_batches(batches), number of batches,
        for_own_devices(wishes)) -> (state, metrics, agreed)`. The state is donated. Each metric is
        a `Mean` of arrays
        `[capacity]`, an entry for each step and zero where no step was taken. `agreed`, int32, is
        the largest of each wish that any process had.
    """
    # Traced once, although `steps` asks for its shapes and for its results.
    step = jax.jit(
        make_step(
            graphdef,
            optimizer,
            select,
            objective,
            max_shift=max_shift,
            image_dtype=image_dtype,
            micro_batches=micro_batches,
            ema_decay=ema_decay,
        )
    )

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
        `(params, model_state, split_batch((batch, mask))) -> Evaluated`, as `padded_batches` has
        the two.
    """

    def step(params: PyTree, model_state: PyTree, batch: PyTree) -> Evaluated:
        examples, mask = batch
        examples, labels = objective.normalise_batch(examples, image_dtype), examples.labels
        model = nnx.merge(graphdef, params, model_state)
        output = objective.apply(model, examples.images, labels, training=False)
        losses = objective.losses(output, examples.targets, labels)
        # Not in training: where votes are recomputed, the coupling is one more pass over them.
        metrics = measure(output, losses, labels, mask)
        if output.coupling is not None:
            metrics["coupling_entropy"] = coupling_entropy(output, mask)
        metrics = across_devices(metrics, AXIS)
        predictions = lax.all_gather(predict(output.lengths, labels), AXIS, tiled=True)
        return Evaluated(metrics, predictions)

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )
