"""Bad numbers: when a run is given up, and what is told about why."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.data import Order, example_keys, shift_examples
from train.distributed import processes
from train.learn.metrics import Mean
from train.learn.network import structure
from train.learn.objective import Objective
from train.learn.program import Program
from train.run.checkpoints import Checkpoints
from train.run.folder import Run
from train.system.errors import DivergedError
from train.system.files import write_json, writing


class BadStepsError(Exception):
    """The devices take no more steps.

    Attributes:
        step: the last step that they took, counted from 0.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Guard:
    """Counts the updates skipped in a row, as the devices do.

    Args:
        most: how many a run bears.
        in_a_row: how many there were before.
    """

    def __init__(self, most: int, in_a_row: int) -> None:
        self._most = most
        self._in_a_row = in_a_row

    def look(self, first: int, metrics: Mapping[str, Mean]) -> None:
        """Looks at the results of a dispatch.

        Args:
            first: the number of its first step, counted from 0.
            metrics: of its steps, arrived from the devices.

        Raises:
            BadStepsError: if that was one too many.
        """
        skipped = metrics["skipped"]
        taken = int(np.sum(skipped.examples))
        for step, bad in enumerate(np.asarray(skipped.total)[:taken], first):
            self._in_a_row = self._in_a_row + 1 if bad else 0
            if self._in_a_row > self._most:
                raise BadStepsError(step)


def give_up(program: Program, run: Run, checkpoints: Checkpoints, step: int) -> NoReturn:
    """Writes a checkpoint of the parameters before the bad steps, and what is known of the last.

    Args:
        program: as the devices left it.
        run: where `bad-numbers.json` goes.
        checkpoints: of the run.
        step: the last bad step, counted from 0.

    Raises:
        DivergedError: always.
    """
    state = program.state
    # Whoever goes on from here has as many steps again.
    state = state._replace(skipped=state.skipped._replace(in_a_row=jnp.zeros((), jnp.int32)))
    checkpoints.save(state)
    config, train = program.config, program.dataset.train
    order = Order.of(train, batch_size=config.schedule.batch_size, seed=config.seed)
    indices = order.indices(step)
    tensor = first_not_finite(program, step, indices) or "none in a step on one device"
    if processes.is_first():
        with writing(run.folder):
            write_json(
                run.bad_numbers,
                {"step": step, "first_not_finite": tensor, "training_examples": indices.tolist()},
            )
    some = ", ".join(map(str, indices[:4]))
    raise DivergedError(
        f"loss or gradient were not finite in {config.optimizer.max_skipped + 1} steps in a row, "
        f"up to step {step} with the training examples {some}, ... ({run.bad_numbers} has "
        f"them all); the first tensor that is not finite is: {tensor}. Checkpoint "
        f"{int(state.step)} holds the parameters from before; try a lower --learning-rate, "
        "--warmup-steps or --clip-norm."
    )


def first_not_finite(program: Program, step: int, indices: np.ndarray) -> str | None:
    """Where in a step the first number is that is not finite, in the order of the computation.

    Args:
        program: with the parameters that the step began with.
        step: its number, counted from 0.
        indices: of its training examples.

    Returns:
        The name of a tensor, or None if all are finite.
    """
    for name, array in _tensors(program, step, indices):
        floating = jnp.issubdtype(array.dtype, jnp.inexact)
        if floating and not bool(jnp.all(jnp.isfinite(array))):
            return name
    return None


def _tensors(program: Program, step: int, indices: np.ndarray) -> Iterator[tuple[str, jax.Array]]:
    config, dataset, state = program.config, program.dataset, program.state
    objective = Objective.of(config)
    graphdef = structure(config, dataset.image_shape, dataset.num_classes)
    key = jax.random.fold_in(state.key, step)
    positions = jnp.arange(len(indices), dtype=jnp.int32)
    examples = jax.tree.map(jnp.asarray, dataset.train.gather(indices))
    shifted = shift_examples(key, examples, positions, config.data.max_shift)
    batch = objective.augment_batch(key, shifted, positions, jnp.dtype(config.model.param_dtype))

    @jax.jit
    def loss(params: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(graphdef, params, state.model_state, copy=True)
        keys = example_keys(key, positions)
        output = objective.apply(model, batch.images, batch.labels, training=True, keys=keys)
        losses = objective.losses(output, batch.targets, batch.labels, state.step)
        return jnp.mean(losses["loss"]), (output, losses)

    yield from _named("parameter", state.params)
    yield "images", batch.images
    gradient, (output, losses) = jax.grad(loss, has_aux=True)(state.params)
    yield from _named("output", output)
    yield from _named("loss", losses)
    yield from _named("gradient of", gradient)


def _named(what: str, tree: Any) -> Iterator[tuple[str, jax.Array]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield f"{what} {jax.tree_util.keystr(path, simple=True, separator='.')}", leaf
