"""The result of a check as a table for a terminal, as JSON, and as Markdown with figures."""

import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import torch

from parity.check import figures
from parity.check.comparison import ADAM, TRAINING, Comparison, Result
from train.system.errors import UserError
from train.system.files import finite_or_none, write_figure, write_whole
from train.system.tables import aligned, markdown_lines

COLUMNS = ("stage", "shape", "absolute", "relative", "limit", "verdict", "worst case")


def table(result: Result, *, verbose: bool = False) -> str:
    """The errors: of each stage the one closest to its limit, or (verbose) that of every case."""
    blocks = []
    for size, comparisons in _by_size(result.comparisons if verbose else result.worst()):
        rows = [(str(c.stage), *cells(c)) for c in comparisons]
        blocks.append(
            f"{size} ({result.dtype})\n{textwrap.indent(aligned([COLUMNS, *rows]), '  ')}"
        )
    return "\n\n".join(blocks)


def verdict(result: Result) -> str:
    """The largest errors, and whether the check passed, in a few lines."""
    count = len(result.limited)
    lines = [
        f"{group}: largest relative error {_number(c.error.relative)}, limit {_number(c.limit)} "
        f"({c.stage.name}; {c.case})"
        for group, c in worst_of_groups(result).items()
    ]
    first = result.first_difference
    if first is None:
        lines.append(
            f"PASS: all {count:,} comparisons in {result.dtype} are within their limits"
            f"{_beside([result])} ({result.seconds:.0f} s)."
        )
    else:
        failed = sum(not c.held for c in result.comparisons)
        lines.append(
            f"FAIL: {failed:,} of {count:,} comparisons in {result.dtype} are beyond their limits. "
            f"The first stage that parts is {first.stage} ({first.case}): "
            f"{_number(first.error.relative)}, limit {_number(first.limit)}"
            f"{f'; {first.error.note}' if first.error.note else ''}."
        )
    return "\n".join(lines)


def summary(results: Mapping[str, Sequence[Result]]) -> str:
    """A line for each of several checks, by their names, and whether all of them passed."""
    heads = ("checked", "in", "comparisons", "closest to its limit", "relative", "limit", "verdict")
    every = [result for of_name in results.values() for result in of_name]
    failed = [result for result in every if not result.passed]
    rows = []
    for result in every:
        closest = max(result.comparisons, key=lambda c: c.share)
        beside = [c for c in result.comparisons if c.stage.group not in (ADAM, TRAINING)]
        unlimited = sum(c.limit is None for c in beside)
        held = "ok" if result.passed else "DIFFERS"
        about = result.name, result.dtype, str(len(result.limited)), str(closest.stage)
        values = _number(closest.error.relative), _number(closest.limit)
        rows.append((*about, *values, f"{held}, {unlimited} information" if unlimited else held))
    lines = [textwrap.indent(aligned([heads, *rows]), "  "), ""]
    lines += [f"{result.name}, {result.dtype}: {verdict(result)}" for result in failed]
    count = sum(len(result.limited) for result in every)
    lines.append(
        f"FAIL: {len(failed)} of {len(every)} checks part."
        if failed
        else f"PASS: {len(results)} routings and models, {count:,} comparisons in both precisions "
        f"are within their limits{_beside(every)} "
        f"({sum(result.seconds for result in every):.0f} s)."
    )
    return "\n".join(lines)


def _beside(results: Sequence[Result]) -> str:
    """How many further comparisons have no limit, if any."""
    count = sum(len(result.comparisons) - len(result.limited) for result in results)
    return f", and {count:,} more without a limit are information" if count else ""


def worst_of_groups(result: Result) -> dict[str, Comparison]:
    """For each group of stages the comparison that comes closest to its limit, or is beyond it."""
    limited = [c for c in result.worst() if c.limit is not None]
    groups = dict.fromkeys(c.stage.group for c in limited)
    return {
        group: max((c for c in limited if c.stage.group == group), key=lambda c: c.share)
        for group in groups
    }


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain values; an error that is not finite is null."""
    first = result.first_difference
    values = {
        "passed": result.passed,
        "layout": result.name,
        **{name: getattr(result, name) for name in ("dtype", "dataset", "seed", "seconds")},
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "torch": torch.__version__,
        },
        "comparisons": len(result.limited),
        "information": len(result.comparisons) - len(result.limited),
        "first_difference": None if first is None else plain(first),
        "groups": {group: plain(c) for group, c in worst_of_groups(result).items()},
        "stages": [plain(c) for c in result.worst()],
        "failures": [plain(c) for c in result.comparisons if not c.held],
        "growth": [growth._asdict() for growth in result.growth],
    }
    return finite(values)


def finite(value: Any) -> Any:
    """Plain values as JSON has them: null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [finite(member) for member in value]
    return finite_or_none(value) if isinstance(value, float) else value


def require_writable(json_file: Path | None, report_folder: Path | None) -> None:
    """Refuses, before anything is computed, what could not be written afterwards."""
    if json_file is not None and json_file.is_dir():
        raise UserError(f"--json {json_file} is a folder: name a file.")
    if report_folder is not None and report_folder.is_file():
        raise UserError(f"--report {report_folder} is a file: name a folder.")
    for option, path in (("--json", json_file), ("--report", report_folder)):
        if path is not None:
            folder = path if path.is_dir() else path.parent
            if not folder.is_dir():
                raise UserError(f"{option}: there is no folder {folder}: make it first.")
            if not os.access(folder, os.W_OK):
                raise UserError(f"{option}: {folder} cannot be written: give permission there.")


def write_report(folder: Path, result: Result) -> None:
    """Writes `report.md`, a figure of histograms for each size, and one of the training."""
    try:
        folder.mkdir(exist_ok=True)
        lines = [
            f"# Parity of capsjax with PyTorch, {result.dtype}",
            "",
            *(f"- {line}" for line in verdict(result).splitlines()),
            "",
            f"Layout `{result.name}`, ordinary images from {result.dataset}, seed {result.seed}, "
            f"on {jax.devices()[0].device_kind}; JAX {jax.__version__}, "
            f"PyTorch {torch.__version__}.",
            "",
            "An error is the largest difference in a stage divided by the largest magnitude in it. "
            "Each stage is shown in the case in which it comes closest to its limit.",
        ]
        pictures = []
        for size, comparisons in _by_size(result.worst()):
            rows = [(c.stage.group, c.stage.name, *cells(c)) for c in comparisons]
            lines += ["", f"## {size}", "", *markdown_lines([("group", *COLUMNS), *rows])]
            name = f"errors-{size.replace(' ', '-')}.png"
            write_figure(folder / name, figures.draw_histograms(size, result, comparisons))
            pictures.append((f"Errors of every stage, {size}", name))
        if result.growth:
            write_figure(folder / "growth.png", figures.draw_growth(result.growth, result.dtype))
            pictures.append(("Growth of the error in training", "growth.png"))
        for title, name in pictures:
            lines += ["", f"## {title}", "", f"![{title}]({name})"]
        write_whole(folder / "report.md", ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be written ({error.strerror}): make room or give permission."
        ) from error


def _by_size(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    sizes = dict.fromkeys(comparison.size for comparison in comparisons)
    return [(size, [c for c in comparisons if c.size == size]) for size in sizes]


def cells(comparison: Comparison) -> tuple[str, ...]:
    """A comparison under all of `COLUMNS` but the first."""
    error = comparison.error
    held = "information" if comparison.limit is None else "ok" if comparison.held else "DIFFERS"
    case = comparison.case.removeprefix(f"{comparison.size}, ")
    return (
        "x".join(map(str, error.shape)) or "scalar",
        _number(error.absolute),
        _number(error.relative),
        _number(comparison.limit),
        held,
        f"{case} [{error.note}]" if error.note else case,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def plain(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values."""
    names = ("shape", "absolute", "relative", "note")
    return {
        "network": comparison.size,
        "group": comparison.stage.group,
        "stage": comparison.stage.name,
        "case": comparison.case,
        **{name: getattr(comparison.error, name) for name in names},
        "limit": comparison.limit,
        "held": comparison.held,
    }
