"""Training steps on images that no camera makes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.config.fit_config import FitConfig
from train.data import Batch
from train.learn.metrics import merge
from train.learn.network import build_model
from train.learn.optimizer import build_optimizer
from train.learn.state import TrainState, initial_state
from train.learn.step import data_mesh, make_dispatch, make_train_step, replicate
from train.learn.update import AXIS

VALUES = (0.0, 1.0, 1e30, -1e30, math.inf, math.nan)


def train_on(
    config: FitConfig, shape: tuple[int, int, int], classes: int, steps: int
) -> list[tuple[float, dict[str, float], TrainState]]:
    """Takes steps on images that hold one value throughout, each value from the same beginning.

    Returns:
        For each of `VALUES`, the metrics of the steps and the state after them, on the host.
    """
    mesh = data_mesh(config.schedule.batch_size, 1)
    optimizer = build_optimizer(config)
    model = build_model(config, shape, classes, axis=AXIS)
    graphdef, state = initial_state(model, optimizer, config)
    batch = config.schedule.batch_size

    def constant_images(constants: Any, labels: jax.Array) -> Batch:
        # Pixels are divided by 255 afterwards.
        return Batch(jnp.full((batch, *shape), constants * 255), labels)

    step = make_train_step(graphdef, optimizer, constant_images, config, mesh)
    labels = [np.arange(batch, dtype=np.int32) % classes] * steps
    found = []
    for value in VALUES:
        fresh = replicate(jax.tree.map(jnp.copy, state), mesh)
        number = np.float32(value)
        after, metrics, _ = step(fresh, number, *make_dispatch(labels, steps, mesh))
        values = after._replace(key=jax.random.key_data(after.key))
        found.append((value, merge([metrics]), jax.tree.map(np.array, values)))
    return found
