"""A comparison drawn: accuracies with their seeds, and how they fall with growing changes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from train.study.compare.findings import Result
from train.study.compare.perturb import PERTURBATIONS
from train.study.statistics import mean_interval


def draw_accuracy(results: Sequence[Result]) -> Figure:
    """A line for each cell: its mean, the 95 % interval of the mean, and each seed as a dot."""
    figure = Figure(figsize=(7.5, 1.2 + 0.38 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(results))[::-1]
    for place, result in zip(places, results, strict=True):
        values = 100 * np.asarray(result["accuracy"])
        interval = mean_interval(values.tolist())
        if np.isfinite(interval.half_width):
            axes.plot(
                [interval.mean - interval.half_width, interval.mean + interval.half_width],
                [place, place],
                color="#6b7f99",
                linewidth=4,
                alpha=0.5,
                solid_capstyle="butt",
            )
        axes.plot(values, np.full(len(values), place), "o", color="#6b7f99", markersize=4)
        axes.plot([interval.mean], [place], "|", color="black", markersize=14)
    axes.set_yticks(places, _labels(results), fontsize=8)
    axes.set_ylim(-0.6, len(results) - 0.4)
    figure.supxlabel(
        "test accuracy in percent: mean, 95 % interval of the mean, and each seed", fontsize=10
    )
    axes.set_xlim(right=min(100.0, axes.get_xlim()[1]))
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_robustness(results: Sequence[Result]) -> Figure:
    """A panel for each kind of change: accuracy by strength, a line for each cell."""
    figure = Figure(figsize=(3.2 * len(PERTURBATIONS), 4.2), layout="constrained")
    styles = ("-", "--", ":", "-.")
    for index, (kind, perturbation) in enumerate(PERTURBATIONS.items(), start=1):
        axes = figure.add_subplot(1, len(PERTURBATIONS), index)
        none = 1.0 if kind == "scaling" else 0.0
        strengths = [none, *perturbation.strengths]
        for number, (result, label) in enumerate(zip(results, _labels(results), strict=True)):
            means = 100 * np.mean(result["robustness"][kind], axis=1)
            style = styles[number // 10 % len(styles)]
            axes.plot(strengths, means, style, marker=".", color=f"C{number % 10}", label=label)
        if kind == "scaling":
            axes.invert_xaxis()
        axes.set_title(kind)
        axes.set_xlabel(perturbation.unit)
        axes.set_ylim(0, 101)
        axes.grid(alpha=0.3)
        if index == 1:
            axes.set_ylabel("accuracy in percent")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(results)), fontsize=8
    )
    return figure


def _labels(results: Sequence[Result]) -> list[str]:
    """What the cells are called: with the data set where there is more than one."""
    if len({result["dataset"] for result in results}) == 1:
        return [result["label"] for result in results]
    return [f"{result['label']} ({result['dataset']})" for result in results]
