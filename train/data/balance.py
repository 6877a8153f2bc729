"""Which examples to take of a set whose classes may stand one after the other in its files."""

import itertools

import numpy as np


def of_each_class(
    labels: np.ndarray, count: int, *, last: bool = False, leave_one: bool = False
) -> np.ndarray:
    """Chooses examples of each class, in proportion to the classes.

    Args:
        labels: int `[n]`, the class of each example.
        count: how many to choose, at most n less those that have to be left.
        last: choose the last ones of each class, instead of the first.
        leave_one: whether one at least of each class is not chosen.

    Returns:
        int64 `[count]`, their positions, ascending.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    shares = count * sizes / len(labels)
    taken = np.floor(shares).astype(int)
    # What rounding down has left goes to the classes that are owed most.
    for index in itertools.cycle(np.argsort(taken - shares, kind="stable")):
        if taken.sum() == count:
            break
        taken[index] += taken[index] < sizes[index] - leave_one
    chosen = []
    for label, size, number in zip(classes, sizes, taken, strict=True):
        start = size - number if last else 0
        chosen.append(np.flatnonzero(labels == label)[start : start + number])
    return np.sort(np.concatenate(chosen))
