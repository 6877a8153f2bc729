"""The same training steps in PyTorch and in capsjax, one at a time."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from parity.check import weights
from parity.check.pairs import Arrays, DtypeName, Pair
from parity.check.stages import gradients_of, nchw
from train.config.fit_config import FitConfig
from train.data import Batch
from train.learn.metrics import merge
from train.learn.optimizer import learning_rate
from train.learn.state import PyTree, initial_state
from train.learn.step import data_mesh, make_dispatch, make_train_step, replicate

DECAY_STEPS = 10
SETTINGS = FitConfig.of(
    preset="parity", learning_rate=0.001, decay_rate=0.5, decay_steps=DECAY_STEPS
)
"""Adam as the paper has it. The learning rate falls to a quarter in 20 steps: enough to be seen."""


def adam(**options: Any) -> optax.GradientTransformation:
    """Adam as `python -m train` makes it, its learning rate computed in the widest dtype there is.

    Told the step as an int32, optax's schedules answer in float32 even in x64 mode: a relative
    error of 5e-8 that 20 steps in float64 would show.

    Args:
        **options: further arguments of `optax.adam`.
    """
    schedule = learning_rate(SETTINGS, training_examples=1)  # not used: steps are given
    return optax.adam(lambda step: schedule(jnp.asarray(step, float)), **options)


class Snapshot(NamedTuple):
    """What an optimiser holds, by the names of capsjax's parameters.

    Attributes:
        parameters: after a step.
        first_moment: Adam's mean of the gradients.
        second_moment: Adam's mean of their squares.
    """

    parameters: Arrays
    first_moment: Arrays
    second_moment: Arrays


class ReferenceTraining:
    """Adam on the PyTorch network of a pair, a copy of which is trained.

    Args:
        pair: the networks.
        dtype: of parameters and computation.
    """

    def __init__(self, pair: Pair, dtype: DtypeName) -> None:
        reference = copy.deepcopy(pair.reference).to(getattr(torch, dtype))
        self._pair = dataclasses.replace(pair, reference=reference)
        self._names = [name for name, _ in self._pair.reference.named_parameters()]
        self._adam = torch.optim.Adam(
            self._pair.reference.parameters(),
            lr=SETTINGS.schedule.learning_rate,
            betas=(0.9, 0.999),
        )
        self._decay = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: SETTINGS.schedule.decay_rate ** (step / DECAY_STEPS)
        )
        self.gradients: Arrays = {}

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Takes a step on uint8 images `[B, H, W, C]` and int32 labels `[B]`; returns the loss."""
        reference = self._pair.reference
        device = next(reference.parameters()).device
        seen = nchw(normalised(self._pair, images, self._pair.dtype)).to(device)
        truth = torch.from_numpy(labels.astype(np.int64)).to(device)
        loss = reference.losses(reference(seen, truth), seen, truth)["total"]
        self.gradients = gradients_of(self._pair, loss)
        self._adam.step()
        self._decay.step()
        return loss.item()

    def snapshot(self) -> Snapshot:
        """The parameters and moments after the last step, as far as they are compared."""
        state = self._adam.state_dict()["state"]
        parameters = self._pair.reference.state_dict()
        return Snapshot(
            self._turned({name: parameters[name] for name in self._names}),
            self._turned({n: state[i]["exp_avg"] for i, n in enumerate(self._names)}),
            self._turned({n: state[i]["exp_avg_sq"] for i, n in enumerate(self._names)}),
        )

    def _turned(self, tensors: Mapping[str, torch.Tensor]) -> Arrays:
        # Copies: the optimiser changes its tensors in place.
        return self._pair.compared(
            self._pair.to_capsjax(
                {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
            )
        )


class CapsjaxTraining:
    """`python -m train`'s own step on the capsjax network of a pair, on one device.

    Args:
        pair: the networks; its objective is minimised.
        batch_size: images in a step.
        optimizer: by default `adam()`.
    """

    def __init__(
        self,
        pair: Pair,
        batch_size: int,
        optimizer: optax.GradientTransformation | None = None,
    ) -> None:
        optimizer = adam() if optimizer is None else optimizer
        self._mesh = data_mesh(batch_size, devices=1)
        config = FitConfig(data=pair.objective.data, objective=pair.objective.settings)
        config = config.changed(param_dtype=str(pair.dtype))
        graphdef, state = initial_state(pair.model, optimizer, config)
        # A copy: the step takes over the memory of its state.
        self._state = replicate(jax.tree.map(lambda array: array.copy(), state), self._mesh)
        self._step = make_train_step(graphdef, optimizer, _batch_itself, config, self._mesh)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Takes a step on uint8 images `[B, H, W, C]` and int32 labels `[B]`; returns the loss."""
        dispatch = make_dispatch([(images, labels)], 1, self._mesh)
        self._state, metrics, _ = self._step(self._state, (), *dispatch)
        return merge([metrics])["loss"]

    def snapshot(self) -> Snapshot:
        """The parameters and moments after the last step."""
        return _snapshot(self._state.params, self._state.optimizer)


class DrivenAdam:
    """capsjax's optimiser alone, told its gradients.

    Args:
        pair: the networks; the optimiser starts from the parameters of the model.
        optimizer: by default `adam()`.
    """

    def __init__(self, pair: Pair, optimizer: optax.GradientTransformation | None = None) -> None:
        optimizer = adam() if optimizer is None else optimizer
        pure = nnx.to_pure_dict(nnx.state(pair.model, nnx.Param))
        self._params = weights.by_name(pure)
        self._state = optimizer.init(self._params)

        @jax.jit
        def update(gradients: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self._update = update

    def step(self, gradients: Arrays) -> None:
        """Takes a step with gradients by the names of the parameters."""
        self._params, self._state = self._update(gradients, self._state, self._params)

    def snapshot(self) -> Snapshot:
        """The parameters and moments after the last step."""
        return _snapshot(self._params, self._state)


def normalised(pair: Pair, images: np.ndarray, dtype: Any) -> np.ndarray:
    """uint8 images as both networks see them: what `Objective.normalise` does, in NumPy."""
    unit = images.astype(dtype) / np.asarray(255, dtype)
    mean, deviation = pair.objective.data.input_mean, pair.objective.data.input_std
    if mean == 0 and deviation == 1:
        return unit
    return (unit - np.asarray(mean, dtype)) / np.asarray(deviation, dtype)


def _batch_itself(constants: Any, batch: Any) -> Batch:
    """Where a feed selects images and labels, the batch holds them."""
    del constants
    return Batch(*batch)


def _snapshot(params: PyTree, optimizer_state: PyTree) -> Snapshot:
    is_adam = lambda state: isinstance(state, optax.ScaleByAdamState)  # noqa: E731
    states = jax.tree.leaves(optimizer_state, is_leaf=is_adam)
    adam = next(state for state in states if is_adam(state))
    return Snapshot(*(weights.by_name(jax.device_get(tree)) for tree in (params, adam.mu, adam.nu)))
