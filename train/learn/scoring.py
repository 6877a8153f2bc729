"""Scores of a network on a whole split, exactly."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from train.data import Examples, padded_batches
from train.distributed import processes
from train.learn.class_metrics import ClassCounts, count_classes
from train.learn.metrics import Mean, merge
from train.learn.objective import is_right
from train.learn.pmap import split_batch

BATCH = 256
"""Images in a scoring step. It is no setting, so that every evaluation sums alike."""


class Scores(NamedTuple):
    """How well a network does on a split, and what it takes each example for.

    Attributes:
        metrics: mean of each loss term; `accuracy`, 0 to 1, and what else `make_scoring_step`
            measures; means over classes, see `ClassCounts.means`.
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
        right = is_right(jnp.asarray(self.predictions), jnp.asarray(self.labels))
        return np.flatnonzero(~np.asarray(right))

    def by_class(self, classes: int) -> ClassCounts:
        """What became of the examples of each of so many classes."""
        return count_classes(self.labels, self.predictions, classes)


def score(
    step: Callable[[Any, Any, Any], tuple[dict[str, Mean], jax.Array]],
    state: Any,
    split: Examples,
    mesh: Mesh,
) -> Scores:
    """Runs a step of `make_scoring_step` for the same mesh over a split, each example once."""
    devices = mesh.devices.size
    batch_size = -(-BATCH // devices) * devices
    part = processes.own_part(batch_size, mesh)
    metrics, predictions, labels = [], [], []
    for batch in padded_batches(split, batch_size):
        own = split_batch(jax.tree.map(lambda array: array[part], batch), mesh)
        of_batch, predicted = step(state.weights, state.model_state, own)
        metrics.append(of_batch)
        predictions.append(predicted)
        labels.append(batch[0].labels)
    scores = Scores(
        merge(metrics),
        np.concatenate(jax.device_get(predictions))[: len(split)],
        np.concatenate(labels)[: len(split)],
    )
    # Classes beyond these are in no mean.
    classes = 1 + max(int(scores.labels.max()), int(scores.predictions.max()))
    return scores._replace(metrics={**scores.metrics, **scores.by_class(classes).means})
