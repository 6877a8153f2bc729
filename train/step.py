"""The pmapped training and evaluation steps: the only file that says pmap.

The state is one copy without a device axis, replicated over the devices (`in_axes=None`,
`out_axes=None`); batches are cut along a leading device axis. `out_axes=None` takes the first
device's value on trust: everything that leaves a step is either reduced over the axis or computed
from reduced values alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data import shift_batch
from train.errors import UserError
from train.metrics import Mean, across_devices
from train.objective import Objective, measure

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
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    optimizer: PyTree
    key: jax.Array


class Evaluated(NamedTuple):
    """What the evaluation step returns for one global batch.

    Attributes:
        metrics: sums and counts over the examples of the mask, the same on every device.
        predictions: int32 `[devices, batch / devices]`.
    """

    metrics: dict[str, Mean]
    predictions: jax.Array


def data_mesh(batch_size: int, devices: int | None = None) -> Mesh:
    """The local devices that share a batch, along one axis.

    Args:
        batch_size: images in a step, over all devices.
        devices: how many devices to use; all local ones if not given.

    Raises:
        UserError: if there are fewer devices, or the batch cannot be shared out equally.
    """
    present = jax.local_devices()
    count = len(present) if devices is None else devices
    if not 1 <= count <= len(present):
        raise UserError(f"--devices is {count}, but this machine has 1 to {len(present)} to offer.")
    if batch_size % count:
        raise UserError(
            f"a batch of {batch_size} cannot be shared equally by {count} devices: choose a batch "
            f"size that is a multiple of {count}, or another number of --devices."
        )
    return Mesh(np.asarray(present[:count]), (AXIS,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a copy of every array on every device, as the steps expect their state."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Cuts host arrays `[batch, ...]` into `[devices, batch / devices, ...]`."""
    count = mesh.devices.size
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)


def initial_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, key: jax.Array
) -> tuple[nnx.GraphDef, TrainState]:
    """Takes a new model apart into what stays and what changes."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    pure = nnx.to_pure_dict(params)
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32),
        params=pure,
        model_state=nnx.to_pure_dict(model_state),
        optimizer=optimizer.init(pure),
        key=key,
    )


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    select: Callable[[Mapping, Mapping], tuple[jax.Array, jax.Array]],
    objective: Objective,
    *,
    max_shift: int,
    image_dtype: jnp.dtype,
    mesh: Mesh,
) -> Callable[[TrainState, PyTree, PyTree], tuple[TrainState, dict[str, Mean]]]:
    """Makes one step of training on all devices of the mesh.

    Args:
        graphdef: the model's structure.
        optimizer: turns mean gradients into updates.
        select: the feed's `select`.
        objective: what is minimised.
        max_shift: see `shift_batch`.
        image_dtype: dtype in which images enter the model and the loss.
        mesh: the devices.

    Returns:
        `(state, feed.constants, split_batch(batch)) -> (state, metrics)`; the state is donated.
    """

    def step(
        state: TrainState, constants: PyTree, batch: PyTree
    ) -> tuple[TrainState, dict[str, Mean]]:
        images, labels = select(constants, batch)
        positions = lax.axis_index(AXIS) * len(labels) + jnp.arange(len(labels), dtype=jnp.int32)
        key = jax.random.fold_in(state.key, state.step)
        images = objective.normalise(shift_batch(key, images, positions, max_shift), image_dtype)

        def loss(params: PyTree) -> tuple[jax.Array, tuple[dict[str, Mean], PyTree]]:
            model = nnx.merge(graphdef, params, state.model_state)
            output = objective.apply(model, images, labels, training=True)
            losses = objective.losses(output, images, labels)
            model_state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return jnp.mean(losses["loss"]), (measure(output, losses, labels), model_state)

        gradient, (metrics, model_state) = jax.grad(loss, has_aux=True)(state.params)
        gradient, model_state = lax.pmean((gradient, model_state), AXIS)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            optimizer=optimizer_state,
            key=state.key,
        )
        return new_state, across_devices(metrics, AXIS)

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
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
        metrics = across_devices(measure(output, losses, labels, mask), AXIS)
        return Evaluated(metrics, jnp.argmax(output.lengths, axis=-1).astype(jnp.int32))

    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=Evaluated(metrics=None, predictions=0),  # type: ignore[arg-type]
        devices=list(mesh.devices.flat),
    )
