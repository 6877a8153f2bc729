"""Figures of how well each class is found, and of what it is taken for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from train.learn.class_metrics import ClassCounts
from train.system.lettering import plain_names

MOST_ROWS = 30
"""Classes that have a row each; of more of them, those with the lowest F1 have."""

_COLOURS = {"precision": "#2f6690", "recall": "#c2571a", "F1": "#333333"}


def draw_confusion(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Draws which class was taken for which, of integer labels and predictions `[n]`."""
    count = len(class_names)
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (labels, predictions), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)

    names = plain_names(tuple(class_names))
    side = min(max(5.0, 0.55 * count + 1.0 + 0.08 * max(map(len, names))), 16.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # The square root of the shares lets single mistakes be seen beside full rows.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if count <= 30:
        for row, column in zip(*np.nonzero(table), strict=True):
            colour = "white" if shares[row, column] > 0.3 else "black"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
            axes.text(column, row, f"{table[row, column]}", **style)
        axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(count), names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


def draw_classes(counts: ClassCounts, class_names: Sequence[str], title: str) -> Figure:
    """Draws precision, recall and F1 of each class, the lowest F1 at the top, and its examples.

    Of many classes the lowest have a row each, and a histogram has the F1 of all. A class without
    examples has no recall, and no dot for it; likewise the precision of one never predicted.
    """
    f1, names = counts.f1, plain_names(tuple(class_names))
    shown = np.argsort(f1, kind="stable")[:MOST_ROWS]  # NaN, of what is not there at all, last
    is_all = len(shown) == len(f1)
    size = (8.0 if is_all else 12.0, 1.6 + 0.3 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    axes, *others = figure.subplots(1, 1 if is_all else 2, squeeze=False)[0]
    places = np.arange(len(shown))[::-1]
    of_each = {"precision": counts.precision, "recall": counts.recall, "F1": f1}
    for (name, shares), marker in zip(of_each.items(), "<>o", strict=True):
        style: dict[str, Any] = {"color": _COLOURS[name], "label": name, "clip_on": False}
        form = {"markersize": 4} if name == "F1" else {"markersize": 8, "fillstyle": "none"}
        axes.plot(shares[shown], places, marker, **style, **form)
    labels = [f"{names[number]}  ({counts.support[number]:,})" for number in shown]
    axes.set_yticks(places, labels, fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(shown) - 0.4), xlabel="share")
    axes.set_title("class (examples)" if is_all else "the classes of lowest F1 (examples)")
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside lower left", ncols=3)
    for histogram in others:
        histogram.hist(f1[np.isfinite(f1)], bins=20, range=(0, 1), color=_COLOURS["F1"], alpha=0.7)
        histogram.set(xlabel="F1", ylabel="classes", title=f"all {len(f1):,} classes")
    figure.suptitle(title)
    return figure
