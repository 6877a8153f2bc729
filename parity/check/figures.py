"""Figures of a check: the errors of every stage, and their growth in training."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parity.check.comparison import BINS, SMALLEST_EXPONENT, Comparison, Growth, Result

_WITHIN, _BEYOND, _REFERENCE = "#2a7f3f", "#b3261e", "#6b7f99"


def draw_histograms(size: str, result: Result, shown: Sequence[Comparison]) -> Figure:
    """The distribution of the errors of each stage of a size, and the limits of comparisons."""
    columns = 6
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.6 * columns, 1.5 * rows + 0.6), layout="constrained")
    figure.suptitle(f"{size}, {result.dtype}: errors of every stage, the limit dashed")
    figure.supxlabel("relative error of an element (those without any stand at the left edge)")
    figure.supylabel("elements")
    lowest = -math.log10(np.finfo(result.dtype).eps) + 4
    edges = np.arange(SMALLEST_EXPONENT - 1, SMALLEST_EXPONENT + BINS) * math.log10(2)
    visible = edges[:-1] >= -lowest
    for index, comparison in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, index)
        of_stage = [
            c.error.histogram
            for c in result.comparisons
            if (c.size, c.stage) == (size, comparison.stage)
        ]
        counts = np.sum(of_stage, axis=0)
        counts_seen = counts[visible]
        counts_seen[0] += counts[~visible].sum()
        color = _WITHIN if comparison.held else _BEYOND
        axes.bar(edges[:-1][visible], counts_seen, width=math.log10(2), align="edge", color=color)
        if comparison.limit is not None:
            axes.axvline(math.log10(comparison.limit), color="black", linestyle="--", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, None)
        axes.set_xlim(-lowest, 0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("$10^{{{x:.0f}}}$")
        axes.set_title(str(comparison.stage), fontsize=7)
        axes.tick_params(labelsize=6)
        axes.set_yticks([1, 1e3, 1e6])
    return figure


def draw_growth(growth: Sequence[Growth], dtype: str) -> Figure:
    """The errors of the parameters and moments after each step, a panel for each training."""
    columns = min(4, len(growth))
    rows = math.ceil(len(growth) / columns)
    figure = Figure(figsize=(max(9.0, 4.2 * columns), 3.2 * rows + 1.4), layout="constrained")
    styles = {"training": "-", "Adam alone": ":"}
    colors = {"parameters": _BEYOND, "first moment": _WITHIN, "second moment": _REFERENCE}
    handles: dict[str, Any] = {}
    for index, one in enumerate(growth, start=1):
        axes = figure.add_subplot(rows, columns, index)
        for name, errors in one.errors.items():
            what, group = name.removesuffix(")").split(" (")
            (handles[name],) = axes.plot(
                one.steps, _positive(errors), styles[group], color=colors[what], marker=".", ms=3
            )
        for what, errors in one.reference_against_float64.items():
            (handles[f"{what} (reference, against float64)"],) = axes.plot(
                one.steps, _positive(errors), "--", color=colors[what], linewidth=0.8
            )
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("largest relative error")
        axes.set_title(one.case, fontsize=9)
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"capsjax against the reference, step after step ({dtype})\n"
        "Errors add up, and jump where a step makes them larger. Dashed: the reference's own "
        "rounding, against itself in float64,\nwhich jumps, too, where it is the arithmetic.",
        fontsize=9,
    )
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _positive(values: Sequence[float]) -> list[float]:
    """What a logarithmic axis can show: nothing in the place of zeros and infinities."""
    return [value if 0 < value < math.inf else math.nan for value in values]
