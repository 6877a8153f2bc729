"""The verdict on a claim: a table, sentences and a figure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.config.fit_config import FitConfig
from train.report.figures import mark_seeds
from train.study.statistics import (
    POWER,
    UNLIKELY,
    Estimate,
    estimate,
    holm,
    pack,
    spread,
    unpack,
)
from train.study.trial.definition import Arm, Budget, Claim, Contrast
from train.study.trial.search import SHARE
from train.system.files import finite_or_none
from train.system.tables import aligned, markdown_lines

COLUMNS = 3
"""Panels beside each other in a figure."""


@dataclass(frozen=True)
class Measured:
    """An arm and what was measured of its networks."""

    arm: Arm
    # By the names of quantities, `[seeds, images]`, or `[seeds, 1]` of one that is not of images.
    values: Mapping[str, np.ndarray]
    parameters: int  # of a network
    steps: Sequence[int]  # that the network of each seed was trained for
    seconds: float  # that training took, all seeds together

    @property
    def images(self) -> int:
        """Training images that a network has seen, the mean of the seeds."""
        return round(float(np.mean(self.steps)) * self.arm.config.schedule.batch_size)

    def of_seeds(self, quantity: str) -> list[float]:
        """The value of a quantity for each seed."""
        return self.values[quantity].mean(axis=1).tolist()

    @classmethod
    def joined(cls, parts: Sequence["Measured"]) -> "Measured":
        """The networks of all parts, of the arm of the first."""
        first = parts[0]
        return dataclasses.replace(
            first,
            values={
                name: np.concatenate([part.values[name] for part in parts]) for name in first.values
            },
            steps=[count for part in parts for count in part.steps],
            seconds=sum(part.seconds for part in parts),
        )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Measured":
        """The arm whose plain values these are."""
        values = {
            name: np.array([[math.nan if value is None else value] for value in of_seeds])
            for name, of_seeds in plain["values"].items()
        }
        for name, packed in plain["of_images"].items():
            flags = [unpack(text, packed["of"]) for text in packed["where"]]
            values[name] = packed["is"] * np.array(flags, np.float64)
        config = FitConfig.of(**plain["config"])
        searched = {float(rate): found for rate, found in plain.get("searched", {}).items()}
        arm = Arm(plain["name"], config, plain["paper"], searched)
        return cls(arm, values, plain["parameters"], plain["steps"], plain["seconds"])

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.arm.name,
            "config": {**self.arm.config.flat(), "seed": 0},
            "paper": dict(self.arm.paper),
            "searched": {f"{rate:g}": found for rate, found in self.arm.searched.items()},
            "values": {
                name: list(map(finite_or_none, self.of_seeds(name))) for name in self.values
            },
            "of_images": {
                name: {
                    "is": float(values.max()),
                    "of": values.shape[1],
                    "where": list(map(pack, values)),
                }
                for name, values in self.values.items()
                if values.shape[1] > 1 and set(np.unique(values)) <= {0.0, values.max()}
            },
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
    is_searched = any(each.arm.searched for each in measured)
    head += ["learning rate"] if is_searched else []
    table = [[*head, "parameters", "images seen", "seconds"]]
    for each in measured:
        row = [each.arm.name]
        for name in names:
            row.append(_mean(each.of_seeds(name)))
            if name in papers:
                row.append(f"{each.arm.paper[name]:g}" if name in each.arm.paper else "")
        if is_searched:
            rates = ", ".join(f"{rate:g}" for rate in each.arm.searched)
            row.append(f"{each.arm.config.schedule.learning_rate:g} of {rates}")
        table.append([*row, f"{each.parameters:,}", f"{each.images:,}", f"{each.seconds:,.0f}"])
    return table


def _mean(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {spread(values):.2f}"


def verdicts(claim: Claim, measured: Sequence[Measured]) -> list[str]:
    """For each contrast a sentence that says whether it was seen."""
    by_name = {each.arm.name: each.values for each in measured}
    if not claim.contrasts:
        return ["Nothing is compared here: the figures are for the eye."]
    found = [
        estimate(
            by_name[contrast.more][contrast.quantity] - by_name[contrast.less][contrast.quantity]
        )
        for contrast in claim.contrasts
    ]
    corrected = holm([each.p_value for each in found])
    sizes = [by_name[contrast.more][contrast.quantity].shape[1] for contrast in claim.contrasts]
    return list(map(_verdict, claim.contrasts, found, corrected, sizes))


def _verdict(contrast: Contrast, found: Estimate, p_value: float, images: int) -> str:
    """Whether a contrast was seen; `images` are the columns of the quantity's values."""
    names = (contrast.less, contrast.more) if found.mean >= 0 else (contrast.more, contrast.less)
    difference = f"{names[0]} has {abs(found.mean):.2f} less than {names[1]} ({contrast.quantity}"
    if math.isnan(found.mean):
        return (
            f"Cannot be told, since not every seed has a value: {contrast.less} has less than "
            f"{contrast.more} ({contrast.quantity})."
        )
    if math.isinf(found.error):
        return f"Cannot be told from seeds that are one or all alike: {difference})."
    chance = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
    difference += (
        f"; {chance}, corrected for all contrasts; by itself its 95 % interval is ± "
        f"{found.half_width:.2f}, and {found.visible:.2f} would be seen in about {POWER:.0%} of "
        f"such trials{'' if images > 1 else '; over other seeds, not other images'})."
    )
    if p_value >= UNLIKELY:
        return f"Not seen, nor its opposite: {difference}"
    return f"{'Seen' if found.mean > 0 else 'The opposite was seen'}: {difference}"


def limits(measured: Sequence[Measured], budget: Budget) -> list[str]:
    """Sentences on what a trial of this size can show."""
    seen = sorted(each.images for each in measured)
    images = f"{seen[0]:,}" if seen[0] == seen[-1] else f"{seen[0]:,} to {seen[-1]:,}"
    seeds = len(measured[0].steps)
    size = (
        f"Budget {budget}: {seeds} {'seed' if seeds == 1 else 'seeds'}, {images} training images "
        "seen by each network."
        + (" In the table ± is the standard deviation of the seeds." if seeds > 1 else "")
    )
    if budget == "small":
        return [
            size,
            "This budget proves nothing: the networks are reduced, none is trained to its end, no "
            "learning rate is searched for, and what is seen of small networks need not be so of "
            "the paper's.",
        ]
    reduced = (
        "The networks are reduced: the paper's need not do as they do, nor they themselves after "
        "more training."
    )
    is_searched = any(each.arm.searched for each in measured)
    return [
        size,
        *([_search_sentence(measured)] if is_searched else []),
        *([reduced] if budget == "medium" else []),
    ]


def _search_sentence(measured: Sequence[Measured]) -> str:
    """Says how learning rates were chosen, and for which networks others may be better yet."""
    sentence = (
        "The learning rate of each network is the one, of those in the table, with the highest "
        f"accuracy on validation images after a training {SHARE:.0%} as long, with a seed of its "
        "own."
    )
    edge = [
        each.arm.name
        for each in measured
        if (tried := each.arm.searched)
        and each.arm.config.schedule.learning_rate in (min(tried), max(tried))
    ]
    if edge:
        sentence += (
            f" It is the smallest or largest for {'; '.join(edge)}: one beyond may be better."
        )
    return sentence


def draw_quantities(claim: Claim, measured: Sequence[Measured]) -> Figure:
    """Draws a panel for each quantity: every seed as a dot, their mean, and the paper's value."""
    count, names = len(claim.quantities), [each.arm.name for each in measured]
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    size = (2.6 + 3.4 * columns, 0.6 + rows * (1 + 0.45 * len(measured)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for unused in panels[count:]:
        unused.remove()
    marks: dict[str, Line2D] = {}
    for axes, quantity in zip(panels[:count], claim.quantities, strict=True):
        values = [each.of_seeds(quantity.name) for each in measured]
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
