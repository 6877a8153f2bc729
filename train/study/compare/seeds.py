"""Training a network from several seeds at once: one program, mapped over the seeds."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from train.bench.costs import footprint
from train.config.fit_config import FitConfig
from train.data import Dataset, Order
from train.learn.network import count_parameters
from train.learn.objective import Objective
from train.learn.optimizer import build_optimizer
from train.learn.pmap import data_mesh
from train.learn.step import AXIS, make_step
from train.learn.trainer import require_divisible
from train.learn.training_state import TrainState, draw_states
from train.system.errors import DivergedError

STEPS = 16
"""Steps in a dispatch, at most."""


class SeedsTrainer:
    """Networks of one configuration that differ in their seed, and the step that trains all.

    Each has its own initial values, order of examples and augmentation: those that a run of
    `python -m train fit` with its seed has; that of the configuration is not used. The data set has
    to fit on the device. A UserError if batch, data and network do not fit each other.

    Attributes:
        states: of the networks, each array with a leading axis of seeds.
        parameters: values in one network.
        total: steps that each takes.
        images_per_second: that all networks together learned from; compilation left out.
    """

    images_per_second = math.nan

    def __init__(self, config: FitConfig, dataset: Dataset, seeds: Sequence[int]) -> None:
        self.config, self.seeds = config, tuple(seeds)
        self.total = config.schedule.total_steps(len(dataset.train))
        self._orders = [
            Order.of(dataset.train, batch_size=config.schedule.batch_size, seed=seed)
            for seed in seeds
        ]
        data_mesh(config.schedule.batch_size, 1, config.schedule.micro_batches)  # which checks it
        optimizer = build_optimizer(config, len(dataset.train))
        shapes = dataset.image_shape, dataset.num_classes
        graphdef, states = draw_states(config, *shapes, optimizer, axis=AXIS, seeds=seeds)
        require_divisible(config, states[0])
        self.parameters = count_parameters(states[0].params)
        self.states: TrainState = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
        self._constants = jax.device_put(dataset.train.constants)
        weights = Objective.of(config).weigh(dataset.train.source_labels, dataset.num_classes)
        step = make_step(graphdef, optimizer, dataset.train.select, config, weights)
        self._steps = jax.jit(functools.partial(_steps, step), donate_argnums=0)

    def train(self, advance: Callable[[int], None] = lambda steps: None) -> "SeedsTrainer":
        """Trains all networks to the end; tells `advance` of each few steps; returns itself.

        A DivergedError if more updates of one had to be skipped in a row than is allowed.
        """
        done, timed, seconds = 0, 0, 0.0
        while done < self.total:
            count = min(STEPS, self.total - done)
            batches = self._batches(done)
            compiled = self._compiled
            start = time.perf_counter()
            self.states = compiled(self.states, self._constants, batches, count)
            jax.block_until_ready(self.states.step)
            if done or self.total <= STEPS:
                seconds, timed = seconds + time.perf_counter() - start, timed + count
            done += count
            advance(count)
            self._require_finite(done)
        if seconds:
            images = timed * self.config.schedule.batch_size * len(self.seeds)
            self.images_per_second = images / seconds
        return self

    def _require_finite(self, step: int) -> None:
        most = self.config.optimizer.max_skipped
        given_up = np.flatnonzero(np.asarray(self.states.skipped.in_a_row) > most)
        if given_up.size:
            raise DivergedError(
                f"{self.config.model.name} with seed {self.seeds[given_up[0]]}: loss or gradient "
                f"were not finite in {most + 1} steps in a row, up to step {step}: try a lower "
                "--learning-rate, --warmup-steps or --clip-norm, or leave it out."
            )

    @property
    def step_bytes(self) -> int:
        """Memory of a step of all networks, by the compiled program: arguments and what it uses."""
        sizes = footprint(self._compiled)
        return sizes["arguments"] + sizes["temporaries"]

    def seconds_per_step(self, steps: int = STEPS) -> float:
        """Time of a step of all networks, which stay as they are; compilation left out."""
        compiled, batches = self._compiled, self._batches(0)
        times = []
        for _ in range(2):
            states = jax.tree.map(lambda array: array.copy(), self.states)
            start = time.perf_counter()
            jax.block_until_ready(compiled(states, self._constants, batches, steps))
            times.append(time.perf_counter() - start)
        return min(times) / steps

    @functools.cached_property
    def _compiled(self) -> Any:
        return self._steps.lower(
            self.states, self._constants, self._batches(0), jnp.int32(1)
        ).compile()

    def _batches(self, first: int) -> np.ndarray:
        """The examples of the next steps, int32 `[STEPS, seeds, batch]`."""
        steps = range(first, first + STEPS)
        return np.stack([[order.indices(step) for order in self._orders] for step in steps])


def _steps(
    step: Callable[..., Any], states: TrainState, constants: Any, indices: jax.Array, count: Any
) -> TrainState:
    """Takes `count` steps; the batch of each network lies on the axis `AXIS`, of size one."""
    over_seeds = jax.vmap(lambda state, indices: step(state, constants, indices)[0])
    over_batch = jax.vmap(over_seeds, in_axes=(None, 0), axis_name=AXIS)

    def body(index: jax.Array, states: TrainState) -> TrainState:
        return jax.tree.map(lambda x: x[0], over_batch(states, indices[index][None]))

    return lax.fori_loop(0, count, body, states)
