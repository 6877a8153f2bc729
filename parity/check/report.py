"""What a check found, as a table for a terminal, as JSON, and as Markdown with figures."""

import io
import math
import os
import platform
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from matplotlib.figure import Figure

from parity.check.cases import Growth, Result
from parity.check.comparison import BINS, SMALLEST_EXPONENT, Comparison
from parity.check.stages import LATER_GROUPS
from train.system.errors import UserError
from train.system.files import finite_or_none
from train.system.tables import aligned

_WITHIN, _BEYOND, _REFERENCE = "#2a7f3f", "#b3261e", "#6b7f99"
COLUMNS = ("stage", "shape", "absolute", "relative", "limit", "verdict", "worst case")


def table(result: Result, *, verbose: bool = False) -> str:
    """The errors, each stage in the case in which it comes closest to its limit.

    Args:
        result: of a check.
        verbose: every stage of every case instead.
    """
    blocks = []
    for network, comparisons in _by_network(result.comparisons if verbose else result.worst()):
        rows = [(f"{c.stage.group}: {c.stage.name}", *_cells(c)) for c in comparisons]
        blocks.append(
            f"{network} ({result.dtype})\n{textwrap.indent(aligned([COLUMNS, *rows]), '  ')}"
        )
    return "\n\n".join(blocks)


def verdict(result: Result) -> str:
    """What follows from the errors, in a few lines."""
    count = len(result.comparisons)
    lines = [
        f"{group}: largest relative error {_number(c.error.relative)}, limit {_number(c.limit)} "
        f"({c.stage.name}; {c.case})"
        for group, c in worst_of_groups(result).items()
    ]
    first = result.first_difference
    if first is None:
        lines.append(
            f"PASS: all {count:,} comparisons in {result.dtype} are within their limits "
            f"({result.seconds:.0f} s)."
        )
        return "\n".join(lines)
    failed = sum(not c.held for c in result.comparisons)
    lines.append(
        f"FAIL: {failed:,} of {count:,} comparisons in {result.dtype} are beyond their limits. "
        f"The first stage that parts is {first.stage.group}: {first.stage.name} ({first.case}): "
        f"{_number(first.error.relative)}, limit {_number(first.limit)}"
        f"{f'; {first.error.note}' if first.error.note else ''}."
    )
    return "\n".join(lines)


def summary(results: Mapping[str, Sequence[Result]]) -> str:
    """A line for each of several checks, and what follows from all of them.

    Args:
        results: by what was checked, the results in both precisions.
    """
    columns = ("checked", "in", "comparisons", "closest to its limit", "relative", "limit", "told")
    rows = []
    for name, of_name in results.items():
        for result in of_name:
            closest = max(result.comparisons, key=lambda c: c.share)
            excused = sum(
                c.limit is None and c.stage.group not in LATER_GROUPS for c in result.comparisons
            )
            told = "ok" if result.passed else "PARTS"
            rows.append(
                (
                    name,
                    result.dtype,
                    str(len(result.comparisons)),
                    f"{closest.stage.group}: {closest.stage.name}",
                    _number(closest.error.relative),
                    _number(closest.limit),
                    f"{told}, {excused} information" if excused else told,
                )
            )
    every = [result for of_name in results.values() for result in of_name]
    count = sum(len(result.comparisons) for result in every)
    seconds = sum(result.seconds for result in every)
    failed = [result for result in every if not result.passed]
    lines = [textwrap.indent(aligned([columns, *rows]), "  "), ""]
    lines += [f"{result.layout}, {result.dtype}: {verdict(result)}" for result in failed]
    lines.append(
        f"FAIL: {len(failed)} of {len(every)} checks part."
        if failed
        else f"PASS: {len(results)} routings and models, {count:,} comparisons in both precisions "
        f"are within their limits ({seconds:.0f} s)."
    )
    return "\n".join(lines)


def worst_of_groups(result: Result) -> dict[str, Comparison]:
    """For each group of stages the comparison that comes closest to its limit, or is beyond it."""
    worst: dict[str, Comparison] = {}
    for comparison in result.worst():
        group = comparison.stage.group
        is_told = comparison.limit is not None
        if is_told and (group not in worst or comparison.share > worst[group].share):
            worst[group] = comparison
    return worst


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain values; an error that is not finite is null."""
    first = result.first_difference
    return {
        "passed": result.passed,
        "layout": result.layout,
        "dtype": result.dtype,
        "dataset": result.dataset,
        "seed": result.seed,
        "seconds": result.seconds,
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "torch": torch.__version__,
        },
        "comparisons": len(result.comparisons),
        "first_difference": None if first is None else _plain(first),
        "groups": {group: _plain(c) for group, c in worst_of_groups(result).items()},
        "stages": [_plain(c) for c in result.worst()],
        "failures": [_plain(c) for c in result.comparisons if not c.held],
        "growth": [
            {
                "case": growth.case,
                "steps": growth.steps,
                "errors": _finite(growth.errors),
                "reference_against_float64": _finite(growth.reference),
            }
            for growth in result.growth
        ],
    }


def require_writable(json_file: Path | None, report_folder: Path | None) -> None:
    """Refuses, before anything is computed, what could not be written afterwards.

    Raises:
        UserError: the file would lie in a folder that is not there or cannot be written, is a
            folder itself, or the folder is a file.
    """
    if json_file is not None:
        if json_file.is_dir():
            raise UserError(f"--json {json_file} is a folder: name a file.")
        _require_folder("--json", json_file.parent)
    if report_folder is not None:
        if report_folder.exists() and not report_folder.is_dir():
            raise UserError(f"--report {report_folder} is a file: name a folder.")
        _require_folder(
            "--report", report_folder if report_folder.exists() else report_folder.parent
        )


def write_json(path: Path, result: Result | Mapping[str, Sequence[Result]]) -> None:
    """Writes the result of a check, or those of several by name, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    import json

    values = (
        as_json(result)
        if isinstance(result, Result)
        else {name: [as_json(one) for one in of_name] for name, of_name in result.items()}
    )
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    _write({path: text.encode()})


def write_report(folder: Path, result: Result) -> None:
    """Writes `report.md`, a figure of histograms for each network, and one of the training.

    Raises:
        UserError: it cannot be written.
    """
    files: dict[Path, bytes] = {}
    pictures = []
    for network, comparisons in _by_network(result.worst()):
        name = f"errors-{network.replace(' ', '-')}.png"
        files[folder / name] = _png(draw_histograms(network, result, comparisons))
        pictures.append((f"Errors of every stage, {network}", name))
    if result.growth:
        files[folder / "growth.png"] = _png(draw_growth(result.growth, result.dtype))
        pictures.append(("Growth of the error in training", "growth.png"))
    files[folder / "report.md"] = _markdown(result, pictures).encode()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}).") from error
    _write(files)


def draw_histograms(network: str, result: Result, shown: Sequence[Comparison]) -> Figure:
    """For each stage how its errors are distributed, over all cases.

    Args:
        network: the network's size.
        result: of the check.
        shown: a comparison for each stage, whose limit is drawn.
    """
    columns = 6
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.6 * columns, 1.5 * rows + 0.6), layout="constrained")
    figure.suptitle(
        f"{network}, {result.dtype}: elements by relative error (logarithmic; 0 at the left edge), "
        "limit dashed"
    )
    lowest = -math.log10(np.finfo(result.dtype).eps) + 4
    edges = np.arange(SMALLEST_EXPONENT - 1, SMALLEST_EXPONENT + BINS) * math.log10(2)
    for index, comparison in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, index)
        counts = np.sum(
            [
                c.error.histogram
                for c in result.comparisons
                if c.network == network and c.stage == comparison.stage
            ],
            axis=0,
        )
        visible = edges[:-1] >= -lowest
        counts_seen = counts[visible].copy()
        counts_seen[0] += counts[~visible].sum()
        color = _WITHIN if comparison.held else _BEYOND
        axes.bar(edges[:-1][visible], counts_seen, width=math.log10(2), align="edge", color=color)
        if comparison.limit is not None:
            axes.axvline(math.log10(comparison.limit), color="black", linestyle="--", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, None)
        axes.set_xlim(-lowest, 0)
        axes.set_title(f"{comparison.stage.group}: {comparison.stage.name}", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.set_yticks([1, 1e3, 1e6])
    return figure


def draw_growth(growth: Sequence[Growth], dtype: str) -> Figure:
    """The errors of the parameters and moments after each step, a panel for each training.

    Args:
        growth: of each training.
        dtype: of the computation.
    """
    columns = min(4, len(growth))
    rows = math.ceil(len(growth) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.9), layout="constrained")
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
        for what, errors in one.reference.items():
            (handles[f"{what} (reference, against float64)"],) = axes.plot(
                one.steps, _positive(errors), "--", color=colors[what], linewidth=0.8
            )
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("largest relative error")
        axes.set_title(one.case, fontsize=9)
        axes.grid(alpha=0.3)
    figure.suptitle(f"capsjax against the reference, step after step ({dtype})")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _markdown(result: Result, pictures: Iterable[tuple[str, str]]) -> str:
    values = as_json(result)
    lines = [
        f"# Parity of capsjax with PyTorch, {result.dtype}",
        "",
        *(f"- {line}" for line in verdict(result).splitlines()),
        "",
        f"Layout `{result.layout}`, ordinary images from {result.dataset}, seed {result.seed}, on "
        f"{values['device']}; JAX {values['versions']['jax']}, "
        f"PyTorch {values['versions']['torch']}.",
        "",
        "An error is the largest difference in a stage divided by the largest magnitude in it. "
        "Each stage is shown in the case in which it comes closest to its limit.",
    ]
    for network, comparisons in _by_network(result.worst()):
        lines += ["", f"## {network}", "", "| " + " | ".join(("group", *COLUMNS)) + " |"]
        lines.append("|" + " --- |" * (len(COLUMNS) + 1))
        lines += [
            "| " + " | ".join((c.stage.group, c.stage.name, *_cells(c))) + " |" for c in comparisons
        ]
    for title, name in pictures:
        lines += ["", f"## {title}", "", f"![{title}]({name})"]
    return "\n".join(lines) + "\n"


def _by_network(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    networks = dict.fromkeys(comparison.network for comparison in comparisons)
    return [(name, [c for c in comparisons if c.network == name]) for name in networks]


def _cells(comparison: Comparison) -> tuple[str, ...]:
    error = comparison.error
    told = "ok" if comparison.held else "PARTS"
    if comparison.limit is None:
        told = "information"
    case = comparison.case.removeprefix(f"{comparison.network}, ")
    return (
        "x".join(map(str, error.shape)) or "scalar",
        _number(error.absolute),
        _number(error.relative),
        _number(comparison.limit),
        told,
        f"{case} [{error.note}]" if error.note else case,
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def _plain(comparison: Comparison) -> dict[str, Any]:
    return {
        "network": comparison.network,
        "group": comparison.stage.group,
        "stage": comparison.stage.name,
        "case": comparison.case,
        "shape": list(comparison.error.shape),
        "absolute": finite_or_none(comparison.error.absolute),
        "relative": finite_or_none(comparison.error.relative),
        "limit": comparison.limit,
        "held": comparison.held,
        "note": comparison.error.note,
    }


def _finite(series: dict[str, list[float]]) -> dict[str, list[float | None]]:
    return {name: [finite_or_none(value) for value in values] for name, values in series.items()}


def _positive(values: Sequence[float]) -> list[float]:
    """What a logarithmic axis can show: nothing in the place of zeros and infinities."""
    return [value if 0 < value < math.inf else math.nan for value in values]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _require_folder(option: str, folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{option}: there is no folder {folder}: make it first.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option}: {folder} cannot be written: give permission there.")


def _write(files: dict[Path, bytes]) -> None:
    """Writes all files beside their places first, then moves them there."""
    staged = {path: path.with_name(f".{path.name}.new") for path in files}
    try:
        for path, content in files.items():
            staged[path].write_bytes(content)
        for path, new in staged.items():
            new.replace(path)
    except OSError as error:
        for new in staged.values():
            new.unlink(missing_ok=True)
        raise UserError(
            f"{error.filename} cannot be written ({error.strerror}): make room or give permission."
        ) from error
