"""The benchmark's figures."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.bench.step_parts import NAMES
from train.bench.sweep import COLUMNS, POINT, Growth, Row, describe

_COLOURS = ("#4f6d94", "#7a9e7e", "#c2571a", "#d9a441", "#8a6fa8")
_REST = "not covered"
_PART_COLOURS = dict(zip((*NAMES, _REST), (*_COLOURS, "#c9ced6"), strict=True))
_LABELS = {
    "batch": "images in a step",
    "iterations": "routing iterations",
    "capsules": "primary capsules",
}
_LEAST_LABELLED = 0.06
"""Share of a bar that a number fits into."""


def draw_all(rows: Sequence[Row], grown: Sequence[Growth], title: str) -> dict[str, Figure]:
    """`parts.png`, and `batch.png`, `iterations.png` and `capsules.png` where they grow."""
    split = [row for row in rows if row["failure"] is None and row["parts"]]
    drawn = {"parts.png": draw_parts(split, title)} if split else {}
    for axis in COLUMNS:
        chosen = [growth for growth in grown if growth.axis == axis]
        if chosen:
            drawn[f"{axis}.png"] = draw_growth(chosen, title)
    return drawn


def draw_parts(rows: Sequence[Row], title: str) -> Figure:
    """Draws each configuration's parts: their times as a bar, their memory as points."""
    figure = Figure(figsize=(11, 2.2 + 0.5 * len(rows)), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    _stack(time, [_milliseconds(row) for row in rows], across=True)
    # The parts of a step share their memory, so that a sum would mean nothing.
    for place, row in enumerate(rows):
        for number, part in enumerate(row["parts"]):
            style = {"color": _PART_COLOURS[part["name"]], "markersize": 6}
            memory.plot(_megabytes(part), place + 0.12 * (number - 2), "o", **style)
    style = {"color": "black", "markersize": 7, "label": "whole step"}
    memory.plot([_megabytes(row) for row in rows], places, "D", **style)
    # Parts that take more together than the step are then seen to.
    time.plot([1e3 * row["step_seconds"] for row in rows], places, "D", **{**style, "label": None})
    memory.set_xlim(left=0)
    for axes in (time, memory):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    differing = [name for name in POINT if len({row.get(name) for row in rows}) > 1]
    names = [describe({k: row.get(k) for k in differing or ["batch_size"]}) for row in rows]
    time.set_yticks(places, names, fontsize=9)
    time.invert_yaxis()
    time.set(title="time, each part alone: together they may take more", xlabel="ms a step")
    memory.set(title="memory, each part as a program of its own", xlabel="MB")
    figure.legend(loc="outside lower center", ncols=len(NAMES) + 2, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_growth(grown: Sequence[Growth], title: str) -> Figure:
    """Draws how speed, time and memory grow with one quantity.

    Speed and memory have a line for each group of configurations, the parts are the first group's.
    """
    axis, first = grown[0].axis, grown[0]
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    speed, time, memory = figure.subplots(1, 3)
    for growth, colour, marker in zip(grown, cycle(_COLOURS), cycle("os^Dv"), strict=False):
        name, rows = describe(growth.same), growth.rows
        rates = [row["images_per_second"] for row in rows]
        low = [row["images_per_second"] - row["slowest"] for row in rows]
        high = [row["fastest"] - row["images_per_second"] for row in rows]
        line = {"color": colour, "marker": marker, "markersize": 6, "fillstyle": "none"}
        speed.errorbar(growth.values, rates, yerr=[low, high], capsize=3, label=name, **line)
        memory.plot(growth.values, [*map(_megabytes, rows)], label=f"planned, {name}", **line)
        peaks = [row["peak_bytes"] / 1e6 for row in rows]
        memory.plot(growth.values, peaks, linestyle=":", label=f"peak in use, {name}", **line)
    values = {value for growth in grown for value in growth.values}
    for axes in (speed, memory):
        _mark(axes, _LABELS[axis], values, doubling=axis != "iterations")
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    speed.set(title="speed, slowest to fastest", ylabel="images a second", ylim=(0, None))
    # On a CPU the peak is that of the whole process, far above what a small step takes.
    memory.set(title="memory", ylabel="MB", yscale="log")

    # A step costs more with every image; what does an image cost?
    per_image = axis == "batch"
    costs = [_milliseconds(row, row["batch_size"] if per_image else 1) for row in first.rows]
    _stack(time, costs, across=False)
    time.set_xticks(range(len(costs)), [f"{value:,}" for value in first.values], fontsize=8)
    time.set(xlabel=_LABELS[axis], ylabel="ms an image" if per_image else "ms a step")
    time.set_title(f"time, {describe(first.same)}", fontsize=10)
    time.grid(axis="y", alpha=0.3)
    time.set_axisbelow(True)
    time.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(title, fontsize=11)
    return figure


def draw_scaling(rows: Sequence[Row], title: str) -> Figure:
    """Draws speed and efficiency by the number of devices."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    speed, share = figure.subplots(1, 2)
    kinds = dict.fromkeys(row["kind"] for row in rows)
    for kind, colour in zip(kinds, cycle(_COLOURS), strict=False):
        chosen = [row for row in rows if row["kind"] == kind]
        counts = [row["devices"] for row in chosen]
        line = {"color": colour, "marker": "o", "markersize": 5, "label": kind}
        speed.plot(counts, [row["images_per_second"] for row in chosen], **line)
        share.plot(counts, [100 * row["efficiency"] for row in chosen], **line)
    for axes in (speed, share):
        _mark(axes, "devices", {row["devices"] for row in rows}, doubling=True)
        axes.legend(frameon=False, fontsize=8)
    speed.set(title="speed", ylabel="images a second", yscale="log")
    share.axhline(100, color="black", linewidth=0.8, linestyle="--", label="ideal")
    highest = max(1.0, *(row["efficiency"] for row in rows))
    share.set(title="efficiency", ylabel="percent of the ideal", ylim=(0, 105 * highest))
    share.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{title}: scaling", fontsize=11)
    return figure


def _mark(axes: Axes, label: str, values: Iterable[int], *, doubling: bool) -> None:
    """Marks the values along x that were measured, and adds a grid."""
    if doubling:
        axes.set_xscale("log", base=2)
    ticks = sorted(values)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)


def _milliseconds(row: Row, images: int = 1) -> dict[str, float]:
    """The parts of a step in milliseconds for so many images, and the rest of the whole step."""
    parts = {part["name"]: 1e3 * part["seconds"] / images for part in row["parts"]}
    return {**parts, _REST: max(0.0, 1e3 * row["step_seconds"] / images - sum(parts.values()))}


def _megabytes(planned: Row) -> float:
    """The memory of a step or of a part."""
    return planned["memory"]["total"] / 1e6


def _stack(axes: Axes, costs: Sequence[Mapping[str, float]], *, across: bool) -> None:
    """Draws a stacked bar for each cost, along x if `across`, with numbers where they fit."""
    draw, base = (axes.barh, "left") if across else (axes.bar, "bottom")
    ends = [0.0] * len(costs)
    largest = max(sum(cost.values()) for cost in costs)
    for name in dict.fromkeys(name for cost in costs for name in cost):
        values = [cost.get(name, 0.0) for cost in costs]
        style: dict[str, Any] = {base: ends, "color": _PART_COLOURS[name], "label": name}
        bars = draw(range(len(costs)), values, 0.7, **style)
        texts = [_short(value) if value > _LEAST_LABELLED * largest else "" for value in values]
        colour = "black" if name == _REST else "white"
        axes.bar_label(bars, texts, label_type="center", fontsize=7, color=colour)
        ends = [end + value for end, value in zip(ends, values, strict=True)]
    # Above the highest bar there is room, which the ends of bars would not leave.
    (axes.set_xlim if across else axes.set_ylim)(0, 1.06 * largest)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
