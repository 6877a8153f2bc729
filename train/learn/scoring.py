"""Scores of a network on a whole split, exactly."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from train.data import Batch, Examples, padded_batches
from train.distributed import processes
from train.learn.class_metrics import ClassCounts, count_classes
from train.learn.metrics import Mean, merge
from train.learn.objective import is_right
from train.learn.pmap import split_batch

BATCH = 256
"""Images in a scoring step, as a rule. It is no setting: every evaluation sums alike."""

FEW = 16
"""So many images share one compiled program with any more; a step of fewer is of them alone."""


def batch_size(examples: int, devices: int, *, alone: bool) -> int:
    """Images in a scoring step of so many examples, a multiple of the devices.

    Where each example is `alone` in what is made of it, it is `BATCH`, or a little more, and the
    last one is filled up, unless there are less than `FEW`. Otherwise it divides the examples, if a
    number of that size does. If none does, the last batch is smaller, with fewer rows to fill it up
    than there are devices.
    """
    size = _rounded(BATCH, devices)
    if alone:
        return size if examples >= FEW else _rounded(examples, devices)
    smaller = range(size, size // 4, -devices)
    return next((count for count in smaller if examples % count == 0), size)


def scoring_batches(
    examples: Examples, devices: int, *, alone: bool
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields examples in order with their masks as `padded_batches` does, as `batch_size` says."""
    size = batch_size(len(examples), devices, alone=alone)
    for padded in padded_batches(examples, size):
        rows = size if alone else _rounded(int(padded[1].sum()), devices)
        yield jax.tree.map(lambda array, rows=rows: array[:rows], padded)


def _rounded(rows: int, devices: int) -> int:
    return -(-rows // devices) * devices


class Scores(NamedTuple):
    """How well a network does on a split, and what it takes each example for.

    Attributes:
        metrics: mean of each loss term; `accuracy`, 0 to 1, and what else `make_scoring_step`
            measures; means over classes, see `ClassCounts.means`.
        predictions: int32 `[n]`, in the order of the split; `[n, k]`, the most present first, where
            an image is of k classes; or bool `[n, classes]`.
        labels: the same dtype and shape.
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
    *,
    alone: bool = True,
) -> Scores:
    """Runs a step of `make_scoring_step` for the same mesh over a split, each example once.

    Where an example is not alone in what is made of it, since a batch shares its logits, nothing
    is put beside the examples: see `batch_size`.
    """
    metrics, predictions, labels = [], [], []
    for batch in scoring_batches(split, mesh.devices.size, alone=alone):
        part = processes.own_part(len(batch[1]), mesh)
        own = split_batch(jax.tree.map(lambda array, part=part: array[part], batch), mesh)
        of_batch, predicted = step(state.weights, state.model_state, own)
        metrics.append(of_batch)
        predictions.append(predicted)
        labels.append(batch[0].labels)
    scores = Scores(
        merge(metrics),
        np.concatenate(jax.device_get(predictions))[: len(split)],
        np.concatenate(labels)[: len(split)],
    )
    # Classes beyond these are in no mean; booleans have one for each.
    classes = 1 + max(int(scores.labels.max()), int(scores.predictions.max()))
    return scores._replace(metrics={**scores.metrics, **scores.by_class(classes).means})
