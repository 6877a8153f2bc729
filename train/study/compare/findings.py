"""The findings of a comparison: tables, sentences and figures."""

import csv
import functools
import io
import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from train.config.checked import flag
from train.config.config_file import CADENCE, completed
from train.report.figures import mark_seeds, scale_errors
from train.study.compare.perturb import PERTURBATIONS
from train.study.statistics import (
    POWER,
    UNLIKELY,
    Estimate,
    estimate,
    holm,
    spread,
    unpack,
)
from train.system.tables import markdown_lines

NAMED = frozenset({"preset", "dataset", "model", "routing", "seed"})
"""Settings that the columns of a table name."""

OF_THE_CELL = NAMED | {"model_options", "routing_options"}
"""Settings that are what is compared."""

Result = Mapping[str, Any]
"""The plain values that `results.json` has for a cell."""


def table(results: Sequence[Result], columns: Sequence[str] = ()) -> list[list[str]]:
    """The names of columns, all if none are given, and a row of text for each cell."""
    rows = list(map(_row, results, differences(results), own_settings(results)))
    columns = columns or list(rows[0])
    return [list(columns), *([row[name] for name in columns] for row in rows)]


def _row(result: Result, against_first: str, recipe: str) -> dict[str, str]:
    likelihood = f"{np.mean(result['nll']):.4f}"
    return {
        "model": result["model"],
        "routing": result["routing"],
        "dataset": result["dataset"],
        "accuracy": _percent(np.mean(result["accuracy"])),
        "spread": _percent(spread(result["accuracy"])),
        "against first": against_first,
        "nll": likelihood if result["from_logits"] else "",
        "nll of lengths": "" if result["from_logits"] else likelihood,
        "calibration": _percent(np.mean(result["calibration_error"])),
        **{kind: _percent(np.mean(result["robustness"][kind][1:])) for kind in PERTURBATIONS},
        "images/s": f"{result['images_per_second']:,.0f}",
        "memory": f"{result['step_bytes'] / 2**20:,.0f} MiB",
        "parameters": f"{result['parameters']:,}",
        "steps": f"{result['steps']:,}",
        "recipe": recipe,
    }


def own_settings(results: Sequence[Result]) -> list[str]:
    """What each cell is trained with that not all cells of its data are: `--max-shift 2`."""
    cells = [(each["dataset"], completed(each["identity"]["config"])) for each in results]
    return [
        differing(config, [each for other, each in cells if other == dataset], OF_THE_CELL)
        for dataset, config in cells
    ]


def differing(
    config: Mapping[str, Any], others: Sequence[Mapping[str, Any]], ignored: Collection[str]
) -> str:
    """The settings of a configuration that not all others have: `--max-shift 2`.

    How often a run prints, measures and saves is no difference.
    """
    names = [
        name
        for name in config
        if name not in {*ignored, *CADENCE} and any(other[name] != config[name] for other in others)
    ]
    return " ".join(
        f"{flag(name)} {_as_given(config[name], [other[name] for other in others])}"
        for name in names
    )


def _as_given(value: Any, others: Sequence[Any]) -> str:
    """The value of a setting as the command line takes it; of options those that differ."""
    if not isinstance(value, dict):
        return str(value)
    names = [
        name
        for name in value
        if any(name not in other or other[name] != value[name] for other in others)
    ]
    return " ".join(f"{name}={json.dumps(value[name], separators=(',', ':'))}" for name in names)


def differences(results: Sequence[Result]) -> list[str]:
    """Of each cell the difference of accuracy to the first of the same data: `+0.12 ± 0.30`.

    In points, with the 95 % interval where it is known; with a star where zero is unlikely after
    the correction for all comparisons of the table.
    """
    firsts = {result["dataset"]: result for result in reversed(results)}
    found = {
        number: _estimate(result, firsts[result["dataset"]])
        for number, result in enumerate(results)
        if result is not firsts[result["dataset"]]
    }
    corrected = dict(zip(found, holm([each.p_value for each in found.values()]), strict=True))
    texts = [""] * len(results)
    for number, each in found.items():
        texts[number] = f"{100 * each.mean:+.2f}"
        if math.isfinite(each.error):
            star = " *" if corrected[number] < UNLIKELY else ""
            texts[number] += f" ± {100 * each.half_width:.2f}{star}"
    return texts


def _estimate(ours: Result, theirs: Result | None = None) -> Estimate:
    """The accuracy of a cell, or how much higher it is than another's."""
    packed = (tuple(ours["right"]), tuple(theirs["right"]) if theirs else ())
    return _estimated(*packed, ours["test_examples"])


@functools.lru_cache(maxsize=256)
def _estimated(ours: tuple[str, ...], theirs: tuple[str, ...], examples: int) -> Estimate:
    right = np.array([unpack(of_seed, examples) for of_seed in ours], np.int8)
    if theirs:
        right = right - np.array([unpack(of_seed, examples) for of_seed in theirs], np.int8)
    return estimate(right)


def markdown(results: Sequence[Result], command: str) -> str:
    """A page: the table, what its columns are, and what it cannot show."""
    lines = [f"`{command}`", "", *markdown_lines(table(results)), "", *_explanations(results), ""]
    return "\n".join([*lines, *limits(results), *saving(results)]) + "\n"


def of_settings(comparisons: Sequence[Sequence[Result]], command: str) -> str:
    """A page on comparisons that differ in their settings: the accuracies by setting.

    A column for each comparison if all are of the same cells, else a row for each setting of a
    cell, by its parameters. The highest of a cell are bold. `command` is that of the first.
    """
    of_cell = ("model", "routing", "dataset")
    cells: dict[tuple[str, ...], list[Result]] = {}
    for result in itertools.chain(*comparisons):
        cells.setdefault(tuple(result[name] for name in of_cell), []).append(result)
    of_cells = []
    for found in cells.values():
        accuracies = [_percent(np.mean(result["accuracy"])) for result in found]
        best = max(accuracies, key=float)
        texts = [f"**{text}**" if text == best else text for text in accuracies]
        configs = [completed(result["identity"]["config"]) for result in found]
        settings = [differing(config, configs, NAMED) for config in configs]
        parameters = [result["parameters"] for result in found]
        of_cells.append(list(zip(settings, parameters, texts, strict=True)))
    if all(len(found) == len(comparisons) for found in of_cells):
        columns = [
            dict.fromkeys(setting for setting, *_ in each) for each in zip(*of_cells, strict=True)
        ]
        rows = [
            [*cell, *(text for *_, text in found)]
            for cell, found in zip(cells, of_cells, strict=True)
        ]
        lines = [[*of_cell, *map("; ".join, columns)], *rows]
    else:
        rows = [
            [*cell, setting, f"{count:,}", text]
            for cell, found in zip(cells, of_cells, strict=True)
            for setting, count, text in sorted(found, key=lambda each: each[1])
        ]
        lines = [[*of_cell, "settings", "parameters", "accuracy"], *rows]
    first = comparisons[0][0]
    folds, seeds = first["identity"].get("folds"), len(first["seeds"])
    images = f"training images, in {folds} folds" if folds else "test images"
    page = [
        f"`{command}`, and with the other settings of the table",
        "",
        *markdown_lines(lines),
        "",
        f"Accuracy on {first['test_examples']:,} {images}, in percent, mean of {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}; the highest of a cell are bold.",
    ]
    return "\n".join(page) + "\n"


def _explanations(results: Sequence[Result]) -> list[str]:
    seeds = results[0]["seeds"]
    of_datasets = {result["dataset"]: result["robustness_examples"] for result in results}
    counts = list(dict.fromkeys(of_datasets.values()))
    changed = f"{counts[0]:,}"
    if len(counts) > 1:
        changed = ", ".join(f"{count:,} ({dataset})" for dataset, count in of_datasets.items())
    strengths = "; ".join(
        f"{kind} {', '.join(map(str, p.strengths))} {p.unit}" for kind, p in PERTURBATIONS.items()
    )
    return [
        f"accuracy: of the test images, in percent, mean of {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}; spread: its standard deviation over the seeds.",
        "against first: points more than the first cell of the same data, seed by seed and image "
        "by image, with its 95 % interval over other seeds (Student's) and other test images "
        "(bootstrap), both added up; * where zero is unlikely, corrected for all comparisons of "
        "the table (Holm, 5 %).",
        "nll: mean negative log likelihood in nats, of the softmax that the network was trained "
        "with; nll of lengths: of lengths as shares of their sum, which is no likelihood that was "
        "trained: the two are not to be compared. calibration: expected calibration error, in "
        "percent, of the length of the predicted class.",
        f"{', '.join(PERTURBATIONS)}: accuracy on {changed} test images, changed, in percent, the "
        f"mean of four strengths ({strengths}).",
        "recipe: what the cell is trained with that not all cells of its data are; empty where all "
        "have one recipe.",
        "images/s: that all seeds learn from together in training; memory: of a training step of "
        "all seeds, by the compiled program.",
    ]


def limits(results: Sequence[Result]) -> list[str]:
    """Sentences on what a comparison of this size cannot show."""
    sentences = [
        f"{result['label']} on {result['dataset']}: {result['skipped_updates']:,} updates were "
        "skipped, since they were not finite."
        for result in results
        if result["skipped_updates"]
    ]
    if len(results[0]["seeds"]) < 2:
        sentences.append("One seed shows no spread: no difference here is known to be one.")
    for dataset in dict.fromkeys(result["dataset"] for result in results):
        of_dataset = [result for result in results if result["dataset"] == dataset]
        first, *others = of_dataset
        visible = max((_estimate(other, first).visible for other in others), default=math.inf)
        if math.isfinite(visible):
            sentences.append(
                f"On {dataset} ({first['test_examples']:,} test images), a true difference of "
                f"{100 * visible:.2f} points of accuracy, were it the only comparison, would be "
                f"told from chance in about {POWER:.0%} of such; a smaller one less often, and so "
                "is each of several."
            )
        if folds := first["identity"].get("folds"):
            sentences.append(
                f"On {dataset} these are training images, of {folds} folds: each was measured by "
                "networks that had not learned from it. The test split was not looked at. The "
                "calibration error is the mean of the folds, each of which, of fewer images, has a "
                "larger one."
            )
        if any(own_settings(of_dataset)):
            sentences.append(
                f"On {dataset} each cell was trained by a recipe of its own, and a difference may "
                "be one of recipes: --recipe trains all by one."
            )
    return sentences


def saving(results: Sequence[Result]) -> list[str]:
    """A sentence on what training all seeds at once saves, if there were more than one."""
    saved = next((result["saved"] for result in results if result["saved"]), None)
    if saved is None:
        return []
    ratio = saved["alone"] * saved["seeds"] / saved["together"]
    return [
        f"All {saved['seeds']} seeds at once: {1000 * saved['together']:.1f} ms a step, one alone "
        f"{1000 * saved['alone']:.1f} ms: {ratio:.2f} times as fast as one after the other (first "
        "cell)."
    ]


def csv_text(results: Sequence[Result]) -> str:
    """A line for each seed of each cell, with plain numbers."""
    names = ["model", "routing", "dataset"]
    measured = ["accuracy", "nll", "calibration_error"]
    changes = [(kind, i) for kind, p in PERTURBATIONS.items() for i in range(len(p.strengths))]
    changed = [f"{kind} {PERTURBATIONS[kind].strengths[i]}" for kind, i in changes]
    of_cell = ["images_per_second", "step_bytes", "parameters", "steps", "skipped_updates"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "seed", *measured, *changed, *of_cell])
    for result in results:
        for index, seed in enumerate(result["seeds"]):
            robust = [result["robustness"][kind][1 + i][index] for kind, i in changes]
            of_seed = [seed, *(result[name][index] for name in measured), *robust]
            writer.writerow([*map(result.get, names), *of_seed, *map(result.get, of_cell)])
    return buffer.getvalue()


def draw_errors(results: Sequence[Result]) -> Figure:
    """Draws for each cell its mean error, the 95 % interval of the mean, and each seed as a dot."""
    figure = Figure(figsize=(7.5, 1.5 + 0.38 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    values = [[100 * (1 - accuracy) for accuracy in result["accuracy"]] for result in results]
    mark_seeds(axes, _labels(results), values, "#6b7f99")
    for place, result in enumerate(reversed(results)):
        found = _estimate(result)
        if math.isfinite(found.error):
            low, high = found.mean - found.half_width, found.mean + found.half_width
            ends = [100 * (1 - min(1, high)), 100 * (1 - max(0, low))]
            axes.plot(ends, [place] * 2, "|-", color="#c2571a", linewidth=1, zorder=1)
    scale_errors(axes, "x")
    axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    axes.set_xlabel("wrong, % (logarithmic; linear below 0.1)")
    figure.suptitle(
        "Test images that are misjudged: mean, its 95 % interval, each seed", fontsize=11
    )
    return figure


def draw_robustness(results: Sequence[Result]) -> Figure:
    """Draws a panel for each kind of change: accuracy by strength, a line for each cell."""
    figure = Figure(figsize=(3.2 * len(PERTURBATIONS), 4.2), layout="constrained")
    styles = ("-", "--", ":", "-.")
    panels = figure.subplots(1, len(PERTURBATIONS))
    for axes, (kind, perturbation) in zip(panels, PERTURBATIONS.items(), strict=True):
        strengths = [perturbation.none, *perturbation.strengths]
        for number, (result, label) in enumerate(zip(results, _labels(results), strict=True)):
            means = 100 * np.mean(result["robustness"][kind], axis=1)
            style = styles[number // 10 % len(styles)]
            axes.plot(strengths, means, style, marker=".", color=f"C{number % 10}", label=label)
        if perturbation.none > 0:
            axes.invert_xaxis()
        axes.set(title=kind, xlabel=perturbation.unit, ylim=(0, 101))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy, %")
    figure.suptitle("Accuracy on test images that are changed, mean of all seeds", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(results)), fontsize=8
    )
    return figure


def _labels(results: Sequence[Result]) -> list[str]:
    """The names of the cells: with the data set where there is more than one."""
    if len({result["dataset"] for result in results}) == 1:
        return [result["label"] for result in results]
    return [f"{result['label']} ({result['dataset']})" for result in results]


def _percent(share: float | np.floating) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
