"""The benchmark's pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.bench.growth import Growth
from train.bench.split import NAMES
from train.bench.tables import describe

_COLOURS = ("#4f6d94", "#7a9e7e", "#c2571a", "#d9a441", "#8a6fa8")
_REST = "#c9ced6"
_PART_COLOURS = dict(zip((*NAMES, "not covered"), (*_COLOURS, _REST), strict=True))
_LABELS = {
    "batch": "images in a step",
    "iterations": "routing iterations",
    "capsules": "primary capsules",
}
_LEAST_LABELLED = 0.06
"""Share of a bar that a number fits into."""


def draw_all(
    folder: Path, rows: Sequence[dict[str, Any]], grown: Sequence[Growth], title: str
) -> list[Path]:
    """Draws `parts.png`, and `batch.png`, `iterations.png` and `capsules.png` where they grow.

    Args:
        folder: where to; made if it is not there.
        rows: of the benchmark.
        grown: `growths(rows)`.
        title: what was measured.

    Returns:
        The files.

    Raises:
        OSError: if one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    split = [row for row in rows if row["failure"] is None and row["parts"]]
    if split:
        written.append(folder / "parts.png")
        draw_parts(written[-1], split, title)
    for axis in _LABELS:
        chosen = [growth for growth in grown if growth.axis == axis]
        if chosen:
            written.append(folder / f"{axis}.png")
            draw_growth(written[-1], chosen, title)
    return written


def draw_parts(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draws each configuration's parts: their times as a bar, their memory as points."""
    figure = Figure(figsize=(11, 2.2 + 0.5 * len(rows)), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    _stack(time, places, [_milliseconds(row) for row in rows], across=True)
    # The parts of a step share their memory, so that a sum would mean nothing.
    for name in NAMES:
        sizes = [_megabytes(row).get(name, math.nan) for row in rows]
        memory.plot(sizes, places, "o", color=_PART_COLOURS[name], markersize=8)
    whole = [row["memory"]["total"] / 1e6 for row in rows]
    memory.plot(whole, places, "D", color="black", markersize=7, label="whole step")
    memory.set_xlim(left=0)
    for axes in (time, memory):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    names = [describe({k: row.get(k) for k in _differing(rows)}) for row in rows]
    time.set_yticks(places, names, fontsize=9)
    time.invert_yaxis()
    time.set(title="time", xlabel="ms a step")
    memory.set(title="memory, each part as a program of its own", xlabel="MB")
    handles, labels = (
        [*ours, *theirs]
        for ours, theirs in zip(
            time.get_legend_handles_labels(), memory.get_legend_handles_labels(), strict=True
        )
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)


def draw_growth(path: Path, grown: Sequence[Growth], title: str) -> None:
    """Draws how speed, time and memory grow with one quantity.

    Speed and memory have a line for each group of configurations, the parts are the first group's.
    """
    axis = grown[0].axis
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    speed, time, memory = figure.subplots(1, 3)
    for growth, colour in zip(grown, _cycle(len(grown)), strict=True):
        name = describe(growth.same)
        rates = [row["images_per_second"] for row in growth.rows]
        low = [row["images_per_second"] - row["slowest"] for row in growth.rows]
        high = [row["fastest"] - row["images_per_second"] for row in growth.rows]
        line = {"color": colour, "marker": "o", "markersize": 4}
        speed.errorbar(growth.values, rates, yerr=[low, high], capsize=3, label=name, **line)
        plans = [row["memory"]["total"] / 1e6 for row in growth.rows]
        peaks = [row["peak_bytes"] / 1e6 for row in growth.rows]
        memory.plot(growth.values, plans, label=f"planned, {name}", **line)
        memory.plot(growth.values, peaks, linestyle=":", label=f"peak in use, {name}", **line)
    for axes in (speed, memory):
        if axis != "iterations":
            axes.set_xscale("log", base=2)
        ticks = sorted({value for growth in grown for value in growth.values})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(_LABELS[axis])
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    speed.set(title="speed", ylabel="images a second", ylim=(0, None))
    # On a CPU the peak is that of the whole process, far above what a small step takes.
    memory.set(title="memory", ylabel="MB", yscale="log")

    first = grown[0]
    costs = [_milliseconds(row) for row in first.rows]
    unit = "ms a step"
    if axis == "batch":  # a step costs more with every image; what does an image cost?
        unit = "ms an image"
        costs = [
            {name: value / row["batch_size"] for name, value in cost.items()}
            for cost, row in zip(costs, first.rows, strict=True)
        ]
    _stack(time, range(len(costs)), costs, across=False)
    time.set_xticks(range(len(costs)), [f"{value:,}" for value in first.values], fontsize=8)
    time.set(title=f"time, {describe(first.same)}", xlabel=_LABELS[axis], ylabel=unit)
    time.title.set_fontsize(10)
    time.grid(axis="y", alpha=0.3)
    time.set_axisbelow(True)
    time.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)


def draw_scaling(
    path: Path, rows: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]], title: str
) -> Path:
    """Draws speed and efficiency by the number of devices, measured and predicted.

    Args:
        path: the file.
        rows: what was measured, see `train.bench.scaling`.
        predicted: what is predicted; none where the bandwidth is not known.
        title: what was measured.

    Raises:
        OSError: if it cannot be written.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    speed, share = figure.subplots(1, 2)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for kind, colour in zip(kinds, _cycle(len(kinds)), strict=True):
        for some, name, style in (
            (rows, "measured", {"marker": "o", "linestyle": "-"}),
            (predicted, "predicted", {"marker": "o", "linestyle": ":", "fillstyle": "none"}),
        ):
            chosen = [row for row in some if row["kind"] == kind]
            if not chosen:
                continue
            counts = [row["devices"] for row in chosen]
            line = {"color": colour, "markersize": 5, "label": f"{kind}, {name}", **style}
            speed.plot(counts, [row["images_per_second"] for row in chosen], **line)
            share.plot(counts, [100 * row["efficiency"] for row in chosen], **line)
    ticks = sorted({row["devices"] for row in [*rows, *predicted]})
    for axes in (speed, share):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("devices")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    speed.set(title="speed", ylabel="images a second", yscale="log")
    share.set(title="efficiency", ylabel="percent of the ideal", ylim=(0, None))
    figure.suptitle(f"{title}: scaling", fontsize=11)
    figure.savefig(path, dpi=120)
    return path


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(row: dict[str, Any]) -> dict[str, float]:
    """The parts of a step in milliseconds, and what is left of the whole step."""
    parts = {part["name"]: 1e3 * part["seconds"] for part in row["parts"]}
    return {**parts, "not covered": max(0.0, 1e3 * row["step_seconds"] - sum(parts.values()))}


def _megabytes(row: dict[str, Any]) -> dict[str, float]:
    return {part["name"]: part["memory"]["total"] / 1e6 for part in row["parts"]}


def _stack(
    axes: Axes, places: Sequence[int], costs: Sequence[dict[str, float]], *, across: bool
) -> None:
    """Draws a stacked bar at each place, along x if `across`, with numbers where they fit."""
    ends = [0.0] * len(costs)
    for name in dict.fromkeys(name for cost in costs for name in cost):
        values = [cost.get(name, 0.0) for cost in costs]
        style: dict[str, Any] = {"color": _PART_COLOURS[name], "label": name}
        if across:
            bars = axes.barh(places, values, 0.7, left=ends, **style)
        else:
            bars = axes.bar(places, values, 0.7, bottom=ends, **style)
        total = [sum(cost.values()) for cost in costs]
        largest = max(total)
        texts = [_short(value) if value > _LEAST_LABELLED * largest else "" for value in values]
        colour = "black" if name == "not covered" else "white"
        axes.bar_label(bars, texts, label_type="center", fontsize=7, color=colour)
        ends = [end + value for end, value in zip(ends, values, strict=True)]


def _differing(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that tell the rows apart; the batch at least."""
    names = ("batch_size", "dtype", "iterations", "implementation", "primary_capsules")
    return [name for name in names if len({row.get(name) for row in rows}) > 1] or ["batch_size"]


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
