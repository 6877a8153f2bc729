"""What was measured for a claim, drawn."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.study.claims.definition import Claim
from train.study.claims.verdict import Measured


def draw_quantities(claim: Claim, measured: Sequence[Measured]) -> Figure:
    """A panel for each quantity: every seed as a dot, their mean, and the paper's value."""
    count = len(claim.quantities)
    figure = Figure(figsize=(2.6 + 3.4 * count, 1.6 + 0.45 * len(measured)), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    places = np.arange(len(measured))[::-1]
    marks: dict[str, Line2D] = {}
    for axes, quantity in zip(panels, claim.quantities, strict=True):
        for place, each in zip(places, measured, strict=True):
            values = each.values[quantity.name]
            seeds = axes.plot(
                values, np.full(len(values), place), "o", color="#2f6690", markersize=5, alpha=0.7
            )
            mean = axes.plot([np.mean(values)], [place], "|", color="black", markersize=16)
            marks |= {"a seed": seeds[0], "mean": mean[0]}
            if quantity.name in each.arm.paper:
                marks["paper"] = axes.plot(
                    [each.arm.paper[quantity.name]], [place], "D", color="#c2571a", markersize=5
                )[0]
        axes.set_title(quantity.name, fontsize=10)
        axes.update_datalim([(0, 0)])
        axes.autoscale_view()  # with a margin on the right, of all that is shown
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [each.arm.name for each in measured], fontsize=9)
    panels[0].set_ylim(-0.6, len(measured) - 0.4)
    figure.legend(
        marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks), fontsize=8
    )
    return figure
