"""Metrics of each class, and their means over classes, from counts of right and wrong ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from train.system.files import finite_or_none


class ClassCounts(NamedTuple):
    """What became of the examples of each class, int64 `[classes]`; those of parts add up.

    A share of nothing is NaN, and left out of means: the recall of a class without examples, the
    precision of one that is never predicted, the F1 of one of which both is true.

    Attributes:
        support: examples that are of the class.
        predicted: examples that are taken for it.
        right: examples of which both is true.
    """

    support: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """The share of what is taken for a class that is of it, float64 `[classes]`."""
        return _share(self.right, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """The share of the examples of a class that is found, float64 `[classes]`."""
        return _share(self.right, self.support)

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall, float64 `[classes]`."""
        return _share(2 * self.right, self.support + self.predicted)

    @property
    def means(self) -> dict[str, float]:
        """Means over classes: balanced accuracy, which is that of recall, precision and F1."""
        return {
            "balanced_accuracy": _mean(self.recall),
            "macro_precision": _mean(self.precision),
            "macro_f1": _mean(self.f1),
        }

    def rows(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Name, precision, recall, F1 and support of each class; None is a share of nothing."""
        shares = [map(float, values) for values in (self.precision, self.recall, self.f1)]
        return [
            {
                "class": name,
                "precision": finite_or_none(precision),
                "recall": finite_or_none(recall),
                "f1": finite_or_none(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in zip(
                class_names, *shares, self.support, strict=True
            )
        ]


def count_classes(labels: np.ndarray, predictions: np.ndarray, classes: int) -> ClassCounts:
    """Counts examples by class.

    Args:
        labels: integers `[n]`, or `[n, k]` where an example is of k different classes.
        predictions: the same shape.
        classes: how many there are.
    """

    def counted(found: np.ndarray) -> np.ndarray:
        return np.bincount(found.ravel(), minlength=classes)

    labels, predictions = (x.reshape(len(x), -1) for x in (labels, predictions))
    found = (labels[:, :, None] == predictions[:, None, :]).any(axis=-1)
    return ClassCounts(counted(labels), counted(predictions), counted(labels[found]))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(shares: np.ndarray) -> float:
    defined = shares[np.isfinite(shares)]
    return float(defined.mean()) if len(defined) else float("nan")
