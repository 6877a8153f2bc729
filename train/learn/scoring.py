"""Measuring a network on a whole split, exactly."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from train.data import Examples, padded_batches
from train.learn.metrics import merge
from train.learn.objective import is_right
from train.learn.step import Evaluated, own_part, split_batch

BATCH = 256
"""Images in an evaluation step. It is no setting, so that every evaluation sums alike."""


class Evaluation(NamedTuple):
    """What is known of a network after it has seen a split.

    Attributes:
        metrics: mean of each loss term and `accuracy`, 0 to 1.
        predictions: int32 `[n]`, in the order of the split; `[n, k]`, the most present first, where
            an image is of k classes.
        labels: int32, the same shape.
    """

    metrics: dict[str, float]
    predictions: np.ndarray
    labels: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """The examples, by number, of which not all classes are predicted."""
        return np.flatnonzero(
            ~np.asarray(is_right(jnp.asarray(self.predictions), jnp.asarray(self.labels)))
        )


def evaluate_split(
    step: Callable[[Any, Any, Any], Evaluated], state: Any, split: Examples, mesh: Mesh
) -> Evaluation:
    """Runs an evaluation step over a split, each example once.

    Args:
        step: made by `make_evaluation_step` for the same mesh.
        state: the training state.
        split: the examples.
        mesh: the devices.
    """
    devices = mesh.devices.size
    batch_size = -(-BATCH // devices) * devices
    part = own_part(batch_size, mesh)
    evaluated, labels = [], []
    for batch in padded_batches(split, batch_size):
        own = jax.tree.map(lambda array: array[part], batch)
        evaluated.append(step(state.weights, state.model_state, split_batch(own, mesh)))
        labels.append(batch[0].labels)
    predictions = np.concatenate([np.asarray(e.predictions) for e in evaluated])
    return Evaluation(
        merge(e.metrics for e in evaluated),
        predictions[: len(split)],
        np.concatenate(labels)[: len(split)],
    )
