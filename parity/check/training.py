"""The same training steps in PyTorch and in capsjax, one at a time, and their comparison."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from parity.check import tolerance
from parity.check.comparison import (
    ADAM,
    TRAINING,
    Comparison,
    Growth,
    Result,
    Stage,
    error_between,
    worst_of,
)
from parity.check.pairs import Arrays, DtypeName, Pair
from parity.check.stages import gradients_of, nchw
from parity.check.subjects import STEPS, Case, Subject
from parity.layouts import weights
from train.config.fit_config import FitConfig
from train.data import Batch, Split
from train.learn.metrics import merge
from train.learn.optimizer import learning_rate
from train.learn.pmap import data_mesh, make_dispatch, make_train_step, replicate
from train.learn.training_state import PyTree, TrainState, initial_state

SNAPSHOTS = (1, STEPS)
"""The steps after which parameters and moments are held to their limits."""

DECAY_STEPS = 10
SETTINGS = FitConfig.of(
    preset="parity", learning_rate=0.001, decay_rate=0.5, decay_steps=DECAY_STEPS
)
"""Adam as the paper has it. The learning rate falls to a quarter in 20 steps: enough to be seen."""

ImagesAndLabels = tuple[np.ndarray, np.ndarray]
"""A batch: uint8 images `[B, H, W, C]` and int32 labels `[B]`."""

Snapshot = dict[str, Arrays]
"""Adam's means of the gradients ("first moment") and of their squares, and the "parameters"."""


def adam(**options: Any) -> optax.GradientTransformation:
    """Adam as `python -m train` makes it, its learning rate computed in the widest dtype there is.

    Given the step as an int32, optax's schedules answer in float32 even in x64 mode: a relative
    error of 5e-8 that 20 steps in float64 would show. Options are those of `optax.adam`.
    """
    schedule = learning_rate(SETTINGS, training_examples=1)  # not used: steps are given
    return optax.adam(lambda step: schedule(jnp.asarray(step, float)), **options)


def train_reference(
    pair: Pair, batches: Sequence[ImagesAndLabels], dtype: DtypeName
) -> Iterator[tuple[float, Arrays, Callable[[], Snapshot]]]:
    """Trains a copy of a pair's PyTorch network in a dtype with Adam, a step a batch.

    Yields the loss, its gradients by the names of capsjax's parameters, and what takes a snapshot
    of the parameters and moments after the step, as far as they are compared.
    """
    pair = pair.in_dtype(dtype)
    reference, parameters = pair.reference, dict(pair.reference.named_parameters())
    schedule = SETTINGS.schedule
    adam = torch.optim.Adam(parameters.values(), lr=schedule.learning_rate, betas=(0.9, 0.999))
    decay = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: schedule.decay_rate ** (step / DECAY_STEPS)
    )

    def turned(tensors: Mapping[str, torch.Tensor]) -> Arrays:
        # Copies: the optimiser changes its tensors in place.
        arrays = {name: value.detach().numpy().copy() for name, value in tensors.items()}
        return pair.compared(pair.to_capsjax(arrays))

    def snapshot() -> Snapshot:
        moments = {name: adam.state[value] for name, value in parameters.items()}
        return {
            "first moment": turned({n: of_n["exp_avg"] for n, of_n in moments.items()}),
            "second moment": turned({n: of_n["exp_avg_sq"] for n, of_n in moments.items()}),
            "parameters": turned(parameters),
        }

    for images, labels in batches:
        seen = nchw(normalised(pair, images))
        truth = torch.from_numpy(labels.astype(np.int64))
        loss = reference.losses(reference(seen, truth), seen, truth)["total"]
        gradients = gradients_of(pair, loss)
        adam.step()
        decay.step()
        yield loss.item(), gradients, snapshot


def train_capsjax(
    pair: Pair, batches: Sequence[ImagesAndLabels], optimizer: optax.GradientTransformation
) -> Iterator[tuple[float, TrainState]]:
    """Takes `python -m train`'s own steps on the capsjax network of a pair, on one device.

    Yields the loss of a batch, and the state after the step, which the next one takes over.
    """
    mesh = data_mesh(len(batches[0][0]), devices=1)
    config = FitConfig(data=pair.objective.data, objective=pair.objective.settings)
    config = config.changed(param_dtype=str(pair.dtype))
    graphdef, state = initial_state(pair.model, optimizer, config)
    # A copy: the step takes over the memory of its state.
    state = replicate(jax.tree.map(lambda array: array.copy(), state), mesh)
    # Where a feed selects images and labels, the batch holds them.
    select = lambda constants, batch: Batch(*batch)  # noqa: E731
    step = make_train_step(graphdef, optimizer, select, config, mesh)
    for batch in batches:
        state, metrics, _ = step(state, (), *make_dispatch([batch], 1, mesh))
        yield merge([metrics])["loss"], state


def compare_training(subject: Subject, case: Case, split: Split, result: Result) -> None:
    """Compares a training on images of a case's size, and adds the comparisons to a result."""
    dtype: DtypeName = "float64" if result.dtype == "float64" else "float32"
    pair = subject.pair(case, dtype=dtype, seed=result.seed)
    optimizer = adam()

    @jax.jit
    def update(gradients: PyTree, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    chosen = np.arange(STEPS * case.batch).reshape(STEPS, case.batch) % len(split)
    batches = [(split.images[indices], split.labels[indices]) for indices in chosen]
    reference = train_reference(pair, batches, dtype)
    wide = train_reference(pair, batches, "float64") if dtype == "float32" else None
    trained = train_capsjax(pair, batches, optimizer)
    params = weights.variables(pair.model)
    alone = params, optimizer.init(params)  # Adam, given the gradients of the reference
    name = str(case)
    growth, losses = Growth(name, [], {}, {}), []
    comparisons: list[Comparison] = []
    training_limit = tolerance.limit("training", dtype)
    comparable = True  # until rounding alone takes the reference beyond the limit
    for number in range(1, STEPS + 1):
        (loss, gradients, reference_snapshot), (our_loss, state) = next(reference), next(trained)
        losses.append((loss, our_loss))
        alone = update(gradients, *alone)
        in_float64 = None if wide is None else next(wide)
        if case.size != "tiny" and number not in SNAPSHOTS and number % 5:
            continue  # snapshots of a large network take longer than its steps
        truth = reference_snapshot()
        found = {ADAM: _snapshot(*alone), TRAINING: _snapshot(state.params, state.optimizer)}
        itself = None if in_float64 is None else in_float64[-1]()
        growth.steps.append(number)
        for what in truth:
            if itself is not None:
                rounding = worst_of(truth[what], itself[what]).relative
                growth.reference_against_float64.setdefault(what, []).append(rounding)
                comparable = comparable and rounding <= training_limit
            for group, snapshot in found.items():
                error = worst_of(snapshot[what], truth[what])
                growth.errors.setdefault(f"{what} ({group})", []).append(error.relative)
                if number not in SNAPSHOTS:
                    continue
                limit = training_limit if comparable else None
                if group == ADAM:
                    limit = tolerance.limit("forward", dtype, number)
                stage = Stage(group, f"{what} after {number} step{'s' * (number > 1)}")
                comparisons.append(Comparison(stage, error, limit, case.size, name))
    of_reference, of_capsjax = np.asarray(losses, np.dtype(dtype)).T
    error = error_between(of_capsjax, of_reference)
    limit = training_limit if comparable else None
    stage = Stage(TRAINING, f"loss of {STEPS} steps")
    comparisons.append(Comparison(stage, error, limit, case.size, name))
    result.comparisons += sorted(comparisons, key=lambda c: c.stage.group != ADAM)
    result.growth.append(growth)


def normalised(pair: Pair, images: np.ndarray) -> np.ndarray:
    """uint8 images as both networks see them: as `Objective.normalise` makes them, in NumPy."""
    data, dtype = pair.objective.data, pair.dtype
    unit = images.astype(dtype) / np.asarray(255, dtype)
    return (unit - np.asarray(data.input_mean, dtype)) / np.asarray(data.input_std, dtype)


def _snapshot(params: PyTree, optimizer_state: PyTree) -> Snapshot:
    mu, nu = (optax.tree.get(optimizer_state, name) for name in ("mu", "nu"))
    trees = {"first moment": mu, "second moment": nu, "parameters": params}
    return {what: weights.by_name(jax.device_get(tree)) for what, tree in trees.items()}
