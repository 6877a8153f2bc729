"""The same training steps in PyTorch and in capsjax, one at a time, and their comparison."""

from collections.abc import Mapping
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
from train.learn.training_state import PyTree, initial_state

SNAPSHOTS = (1, STEPS)
"""The steps after which parameters and moments are held to their limits."""

DECAY_STEPS = 10
SETTINGS = FitConfig.of(
    preset="parity", learning_rate=0.001, decay_rate=0.5, decay_steps=DECAY_STEPS
)
"""Adam as the paper has it. The learning rate falls to a quarter in 20 steps: enough to be seen."""

Snapshot = dict[str, Arrays]
"""Adam's means of the gradients ("first moment") and of their squares, and the "parameters"."""


def adam(**options: Any) -> optax.GradientTransformation:
    """Adam as `python -m train` makes it, its learning rate computed in the widest dtype there is.

    Given the step as an int32, optax's schedules answer in float32 even in x64 mode: a relative
    error of 5e-8 that 20 steps in float64 would show. Options are those of `optax.adam`.
    """
    schedule = learning_rate(SETTINGS, training_examples=1)  # not used: steps are given
    return optax.adam(lambda step: schedule(jnp.asarray(step, float)), **options)


class ReferenceTraining:
    """Adam on the PyTorch network of a pair, a copy of which is trained in a dtype.

    Attributes:
        gradients: of the last step, by the names of capsjax's parameters.
    """

    def __init__(self, pair: Pair, dtype: DtypeName) -> None:
        self._pair = pair.in_dtype(dtype)
        self._parameters = dict(self._pair.reference.named_parameters())
        self._adam = torch.optim.Adam(
            list(self._parameters.values()), lr=SETTINGS.schedule.learning_rate, betas=(0.9, 0.999)
        )
        self._decay = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: SETTINGS.schedule.decay_rate ** (step / DECAY_STEPS)
        )
        self.gradients: Arrays = {}

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Takes a step on uint8 images `[B, H, W, C]` and int32 labels `[B]`; returns the loss."""
        reference = self._pair.reference
        seen = nchw(normalised(self._pair, images, self._pair.dtype))
        truth = torch.from_numpy(labels.astype(np.int64))
        loss = reference.losses(reference(seen, truth), seen, truth)["total"]
        self.gradients = gradients_of(self._pair, loss)
        self._adam.step()
        self._decay.step()
        return loss.item()

    def snapshot(self) -> Snapshot:
        """The parameters and moments after the last step, as far as they are compared."""

        def turned(tensors: Mapping[str, torch.Tensor]) -> Arrays:
            # Copies: the optimiser changes its tensors in place.
            arrays = {name: value.detach().numpy().copy() for name, value in tensors.items()}
            return self._pair.compared(self._pair.to_capsjax(arrays))

        moments = {name: self._adam.state[value] for name, value in self._parameters.items()}
        return {
            "first moment": turned({n: of_n["exp_avg"] for n, of_n in moments.items()}),
            "second moment": turned({n: of_n["exp_avg_sq"] for n, of_n in moments.items()}),
            "parameters": turned(self._parameters),
        }


class CapsjaxTraining:
    """`python -m train`'s own step on the capsjax network of a pair, on one device."""

    def __init__(
        self, pair: Pair, batch_size: int, optimizer: optax.GradientTransformation
    ) -> None:
        self._mesh = data_mesh(batch_size, devices=1)
        config = FitConfig(data=pair.objective.data, objective=pair.objective.settings)
        config = config.changed(param_dtype=str(pair.dtype))
        graphdef, state = initial_state(pair.model, optimizer, config)
        # A copy: the step takes over the memory of its state.
        self.state = replicate(jax.tree.map(lambda array: array.copy(), state), self._mesh)
        # Where a feed selects images and labels, the batch holds them.
        select = lambda constants, batch: Batch(*batch)  # noqa: E731
        self._step = make_train_step(graphdef, optimizer, select, config, self._mesh)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Takes a step on uint8 images `[B, H, W, C]` and int32 labels `[B]`; returns the loss."""
        dispatch = make_dispatch([(images, labels)], 1, self._mesh)
        self.state, metrics, _ = self._step(self.state, (), *dispatch)
        return merge([metrics])["loss"]


def compare_training(subject: Subject, case: Case, split: Split, result: Result) -> None:
    """Compares a training on images of a case's size, and adds the comparisons to a result."""
    dtype: DtypeName = "float64" if result.dtype == "float64" else "float32"
    pair = subject.pair(case, dtype=dtype, seed=result.seed)
    optimizer = adam()

    @jax.jit
    def update(gradients: PyTree, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    reference = ReferenceTraining(pair, dtype)
    wide = ReferenceTraining(pair, "float64") if dtype == "float32" else None
    trained = CapsjaxTraining(pair, case.batch, optimizer)
    params = weights.variables(pair.model)
    alone = params, optimizer.init(params)  # Adam, given the gradients of the reference
    name = str(case)
    growth, losses = Growth(name, [], {}, {}), []
    comparisons: dict[str, list[Comparison]] = {ADAM: [], TRAINING: []}
    training_limit = tolerance.limit("training", dtype)
    comparable = True  # until rounding alone takes the reference beyond the limit
    for number in range(1, STEPS + 1):
        chosen = np.arange((number - 1) * case.batch, number * case.batch) % len(split)
        batch = split.images[chosen], split.labels[chosen]
        losses.append((reference.step(*batch), trained.step(*batch)))
        alone = update(reference.gradients, *alone)
        if wide is not None:
            wide.step(*batch)
        if case.size != "tiny" and number not in SNAPSHOTS and number % 5:
            continue  # snapshots of a large network take longer than its steps
        truth = reference.snapshot()
        state = trained.state
        found = {ADAM: _snapshot(*alone), TRAINING: _snapshot(state.params, state.optimizer)}
        itself = None if wide is None else wide.snapshot()
        growth.steps.append(number)
        for what in truth:
            if itself is not None:
                rounding = worst_of(truth[what], itself[what]).relative
                growth.reference.setdefault(what, []).append(rounding)
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
                comparisons[group].append(Comparison(stage, error, limit, case.size, name))
    of_reference, of_capsjax = np.asarray(losses, np.dtype(dtype)).T
    error = error_between(of_capsjax, of_reference)
    limit = training_limit if comparable else None
    stage = Stage(TRAINING, f"loss of {STEPS} steps")
    comparisons[TRAINING].append(Comparison(stage, error, limit, case.size, name))
    result.comparisons += comparisons[ADAM] + comparisons[TRAINING]
    result.growth.append(growth)


def normalised(pair: Pair, images: np.ndarray, dtype: Any) -> np.ndarray:
    """uint8 images as both networks see them: as `Objective.normalise` makes them, in NumPy."""
    unit = images.astype(dtype) / np.asarray(255, dtype)
    mean, deviation = pair.objective.data.input_mean, pair.objective.data.input_std
    if mean == 0 and deviation == 1:
        return unit
    return (unit - np.asarray(mean, dtype)) / np.asarray(deviation, dtype)


def _snapshot(params: PyTree, optimizer_state: PyTree) -> Snapshot:
    is_adam = lambda state: isinstance(state, optax.ScaleByAdamState)  # noqa: E731
    states = jax.tree.leaves(optimizer_state, is_leaf=is_adam)
    adam = next(state for state in states if is_adam(state))
    trees = {"first moment": adam.mu, "second moment": adam.nu, "parameters": params}
    return {what: weights.by_name(jax.device_get(tree)) for what, tree in trees.items()}
