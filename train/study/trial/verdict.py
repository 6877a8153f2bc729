"""The verdict on a claim: a table, sentences and a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.report.figures import mark_seeds
from train.study.statistics import paired_difference, spread
from train.study.trial.definition import Arm, Budget, Claim, Contrast
from train.system.tables import aligned, markdown_lines


@dataclass(frozen=True)
class Measured:
    """An arm and what was measured of its networks.

    Attributes:
        arm: what was trained.
        values: by the names of quantities, a value for each seed.
        parameters: of a network.
        steps: that the network of each seed was trained for.
        seconds: that training took, all seeds together.
    """

    arm: Arm
    values: Mapping[str, Sequence[float]]
    parameters: int
    steps: Sequence[int]
    seconds: float

    @property
    def images(self) -> int:
        """Training images that a network has seen, the mean of the seeds."""
        return round(float(np.mean(self.steps)) * self.arm.config.schedule.batch_size)

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.arm.name,
            "config": {**self.arm.config.flat(), "seed": 0},
            "paper": dict(self.arm.paper),
            "values": {name: list(values) for name, values in self.values.items()},
            "parameters": self.parameters,
            "steps": list(self.steps),
            "seconds": self.seconds,
        }


def text(claim: Claim, measured: Sequence[Measured], budget: Budget) -> str:
    """The table and the sentences, for a terminal."""
    return "\n".join([aligned(_rows(claim, measured)), *_sentences(claim, measured, budget)])


def markdown(
    claim: Claim,
    measured: Sequence[Measured],
    budget: Budget,
    command: str,
    figures: Sequence[str] = (),
) -> str:
    """The same as a page, with figures by the names of their files."""
    lines = [
        f"**{claim.says}** ({claim.source})",
        "",
        f"`{command}`",
        "",
        *markdown_lines(_rows(claim, measured)),
        "",
        *(f"- {sentence}" for sentence in _sentences(claim, measured, budget)),
        "",
        *(f"![{name}]({name})" for name in figures),
    ]
    return "\n".join(lines) + "\n"


def _sentences(claim: Claim, measured: Sequence[Measured], budget: Budget) -> list[str]:
    return [*verdicts(claim, measured), *limits(measured, budget)]


def _rows(claim: Claim, measured: Sequence[Measured]) -> list[list[str]]:
    """The table, its head first."""
    names = [quantity.name for quantity in claim.quantities]
    papers = [name for name in names if any(name in each.arm.paper for each in measured)]
    head = ["network"]
    for name in names:
        head += [name, *(["paper"] if name in papers else [])]
    table = [[*head, "parameters", "images seen", "seconds"]]
    for each in measured:
        row = [each.arm.name]
        for name in names:
            row.append(_mean(each.values[name]))
            if name in papers:
                row.append(f"{each.arm.paper[name]:g}" if name in each.arm.paper else "")
        table.append([*row, f"{each.parameters:,}", f"{each.images:,}", f"{each.seconds:,.0f}"])
    return table


def _mean(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {spread(values):.2f}"


def verdicts(claim: Claim, measured: Sequence[Measured]) -> list[str]:
    """For each contrast a sentence that says whether it was seen."""
    by_name = {each.arm.name: each.values for each in measured}
    if not claim.contrasts:
        return ["Nothing is compared here: the figures are for the eye."]
    return [_verdict(contrast, by_name) for contrast in claim.contrasts]


def _verdict(contrast: Contrast, by_name: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    less, more = (by_name[name][contrast.quantity] for name in (contrast.less, contrast.more))
    interval = paired_difference(more, less)
    names = (contrast.less, contrast.more) if interval.mean >= 0 else (contrast.more, contrast.less)
    difference = (
        f"{names[0]} has {abs(interval.mean):.2f} points less than {names[1]} ({contrast.quantity}"
    )
    if len(less) < 2:
        return f"Cannot be told from one seed: {difference})."
    difference += f"; 95 % interval ± {interval.half_width:.2f}, {len(less)} seeds)."
    if not interval.excludes_zero:
        return f"Not seen, nor its opposite: {difference}"
    return f"{'Seen' if interval.mean > 0 else 'The opposite was seen'}: {difference}"


def limits(measured: Sequence[Measured], budget: Budget) -> list[str]:
    """Sentences on what a trial of this size can show."""
    seen = sorted(each.images for each in measured)
    images = f"{seen[0]:,}" if seen[0] == seen[-1] else f"{seen[0]:,} to {seen[-1]:,}"
    seeds = len(measured[0].steps)
    size = (
        f"Budget {budget}: {seeds} {'seed' if seeds == 1 else 'seeds'}, {images} training images "
        "seen by each network."
    )
    if budget == "paper":
        return [size]
    return [
        size,
        "This budget proves nothing: the networks are reduced, none is trained to its end, and "
        "what is seen of small networks need not be so of the paper's.",
    ]


def draw_quantities(claim: Claim, measured: Sequence[Measured]) -> Figure:
    """Draws a panel for each quantity: every seed as a dot, their mean, and the paper's value."""
    count, names = len(claim.quantities), [each.arm.name for each in measured]
    figure = Figure(figsize=(2.6 + 3.4 * count, 1.6 + 0.45 * len(measured)), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    marks: dict[str, Line2D] = {}
    for axes, quantity in zip(panels, claim.quantities, strict=True):
        values = [each.values[quantity.name] for each in measured]
        marks |= mark_seeds(axes, names, values, "#2f6690")
        for place, each in enumerate(reversed(measured)):
            if quantity.name in each.arm.paper:
                of_paper = [each.arm.paper[quantity.name]]
                (marks["paper"],) = axes.plot(of_paper, [place], "D", color="#c2571a", markersize=5)
        axes.set_title(quantity.name, fontsize=10)
        axes.update_datalim([(0, 0)])
        axes.autoscale_view(scaley=False)  # with a margin on the right, of all that is shown
        axes.set_xlim(left=0)
    figure.legend(
        marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks), fontsize=8
    )
    return figure
