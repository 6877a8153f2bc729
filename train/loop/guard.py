"""Numbers that are not finite: when a run is given up, and what is written about why."""

from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from train.data import Order
from train.distributed import processes
from train.learn.augment import example_keys
from train.learn.metrics import Mean
from train.learn.network import structure
from train.learn.objective import Objective
from train.learn.step import forward
from train.learn.trainer import Trainer
from train.run.checkpoint_files import Checkpoints
from train.run.folder import Run
from train.system.errors import DivergedError
from train.system.files import write_json, writing


class Guard:
    """Counts the updates skipped in a row, as the devices do, and gives up after too many."""

    def __init__(self, trainer: Trainer, run: Run, checkpoints: Checkpoints) -> None:
        self._trainer, self._run, self._checkpoints = trainer, run, checkpoints
        self._in_a_row = int(trainer.state.skipped.in_a_row)

    def check(self, first: int, metrics: Mapping[str, Mean]) -> None:
        """Takes in the metrics of a dispatch that have arrived; steps are counted from 0.

        Raises:
            DivergedError: if one more update was skipped in a row than `max_skipped`; a checkpoint
                of the parameters before is written.
        """
        skipped = metrics["skipped"]
        taken = int(np.sum(skipped.examples))
        for step, is_bad in enumerate(np.asarray(skipped.total)[:taken], first):
            self._in_a_row = self._in_a_row + 1 if is_bad else 0
            if self._in_a_row > self._trainer.config.optimizer.max_skipped:
                self._give_up(step)

    def _give_up(self, step: int) -> NoReturn:
        state, config = self._trainer.state, self._trainer.config
        # Whoever goes on from here has as many steps again.
        state = state._replace(skipped=state.skipped._replace(in_a_row=jnp.zeros((), jnp.int32)))
        self._checkpoints.save(state)
        order = Order.of(
            self._trainer.dataset.train, batch_size=config.schedule.batch_size, seed=config.seed
        )
        indices = order.indices(step)
        try:
            tensor = (
                first_not_finite(self._trainer, step, indices) or "none in a step on one device"
            )
        except jax.errors.JaxRuntimeError:  # which trains in parts or on several devices
            tensor = "not known, since the whole batch does not fit on one device"
        path, examples = self._run.bad_numbers, indices.tolist()
        if processes.is_first():
            values = {"step": step, "first_not_finite": tensor, "training_examples": examples}
            with writing(self._run.folder):
                write_json(path, values)
        some = ", ".join(map(str, indices[:4]))
        raise DivergedError(
            f"loss or gradient were not finite in {config.optimizer.max_skipped + 1} steps in a "
            f"row, up to step {step} with the training examples {some}, ... ({path} has them all); "
            f"the first tensor that is not finite is: {tensor}. Checkpoint {int(state.step)} holds "
            "the parameters from before; try a lower --learning-rate, --warmup-steps or "
            "--clip-norm."
        )


def first_not_finite(trainer: Trainer, step: int, indices: np.ndarray) -> str | None:
    """The name of the first tensor of a step that is not finite, in the order of the computation.

    The trainer has the parameters that the step, counted from 0, began with; the indices are those
    of its training examples. None if all tensors are finite.
    """
    config, dataset, state = trainer.config, trainer.dataset, trainer.state
    objective = Objective.of(config)
    graphdef = structure(config, dataset.image_shape, dataset.num_classes)
    key = jax.random.fold_in(state.key, step)
    positions = jnp.arange(len(indices), dtype=jnp.int32)
    examples = jax.tree.map(jnp.asarray, dataset.train.gather(indices))
    batch = objective.augment(key, examples, positions, jnp.dtype(config.model.param_dtype))

    @jax.jit
    def loss(params: Any) -> tuple[jax.Array, Any]:
        keys = example_keys(key, positions)
        _, output, losses = forward(graphdef, objective, state, params, batch, keys)
        return jnp.mean(losses["loss"]), (output, losses)

    gradient, (output, losses) = jax.grad(loss, has_aux=True)(state.params)
    for what, tree in (
        ("parameter", state.params),
        ("images", batch.images),
        ("output", output),
        ("loss", losses),
        ("gradient of", gradient),
    ):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
                return f"{what} {jax.tree_util.keystr(path, simple=True, separator='.')}".rstrip()
    return None
