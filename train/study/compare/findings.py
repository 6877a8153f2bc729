"""What a comparison found, as tables and as a few sentences."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.study.compare.perturb import PERTURBATIONS
from train.study.statistics import Interval, paired_difference, smallest_visible, spread
from train.system.tables import markdown_lines

Result = Mapping[str, Any]
"""What is known of a cell: its plain values in `results.json`."""

COLUMNS = (
    "model",
    "routing",
    "dataset",
    "accuracy",
    "spread",
    "against first",
    "nll",
    "calibration",
    *PERTURBATIONS,
    "images/s",
    "memory",
    "parameters",
    "steps",
)


def rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """A row of the table for each cell, as text."""
    table = []
    for result in results:
        first = next(r for r in results if r["dataset"] == result["dataset"])
        accuracies = result["accuracy"]
        table.append(
            {
                "model": result["model"],
                "routing": result["routing"],
                "dataset": result["dataset"],
                "accuracy": _percent(np.mean(accuracies)),
                "spread": _percent(spread(accuracies)),
                "against first": "" if result is first else difference(result, first),
                "nll": f"{np.mean(result['nll']):.4f}",
                "calibration": _percent(np.mean(result["calibration_error"])),
                **{
                    kind: _percent(np.mean(result["robustness"][kind][1:]))
                    for kind in PERTURBATIONS
                },
                "images/s": f"{result['images_per_second']:,.0f}",
                "memory": f"{result['step_bytes'] / 2**20:,.0f} MiB",
                "parameters": f"{result['parameters']:,}",
                "steps": f"{result['steps']:,}",
            }
        )
    return table


def difference(ours: Result, theirs: Result) -> str:
    """How much more accurate, in points, with the interval: `+0.12 +- 0.30`."""
    interval = paired_difference(ours["accuracy"], theirs["accuracy"])
    return _points(interval)


def markdown(results: Sequence[Result], command: str) -> str:
    """The table, what its columns are, and what it cannot show."""
    lines = [
        f"`{command}`",
        "",
        *markdown_lines([COLUMNS, *([row[name] for name in COLUMNS] for row in rows(results))]),
        "",
        *explanations(results),
        "",
        *limits(results),
    ]
    return "\n".join(lines) + "\n"


def explanations(results: Sequence[Result]) -> list[str]:
    """What the columns are."""
    seeds, first = results[0]["seeds"], results[0]
    strengths = "; ".join(
        f"{kind} {', '.join(map(str, p.strengths))} {p.unit}" for kind, p in PERTURBATIONS.items()
    )
    return [
        f"accuracy: of the test images, in percent, mean of {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}; spread: its standard deviation over the seeds.",
        "against first: points more than the first cell of the same data, the mean of the paired "
        "differences of the seeds, with its 95 % confidence interval (Student's t); * where the "
        "interval leaves zero out.",
        "nll: mean negative log likelihood in nats, lengths as shares of their sum; calibration: "
        "expected calibration error, in percent, of the length of the predicted class.",
        f"{', '.join(PERTURBATIONS)}: accuracy on the first {first['robustness_examples']:,} test "
        f"images, changed, in percent, the mean of four strengths ({strengths}).",
        "images/s: that all seeds learn from together in training; memory: of a training step of "
        "all seeds, by the compiled program.",
    ]


def limits(results: Sequence[Result]) -> list[str]:
    """What a comparison of this size cannot show."""
    told = []
    seeds = results[0]["seeds"]
    if len(seeds) < 2:
        told.append("One seed shows no spread: no difference here is known to be one.")
    for dataset in dict.fromkeys(result["dataset"] for result in results):
        of_dataset = [result for result in results if result["dataset"] == dataset]
        visible = max(smallest_visible(r["accuracy"], r["test_examples"]) for r in of_dataset)
        told.append(
            f"On {dataset} ({of_dataset[0]['test_examples']:,} test images), differences of less "
            f"than about {100 * visible:.2f} points of accuracy can't be told from chance."
        )
        budgets = {(r["steps"], r["batch_size"]) for r in of_dataset}
        if len(budgets) > 1:
            told.append(
                f"On {dataset} the cells were not trained for as long as one another: --steps and "
                "--batch-size give all the same budget."
            )
    return told


def csv_text(results: Sequence[Result]) -> str:
    """A line for each seed of each cell, with plain numbers."""
    buffer = io.StringIO()
    names = ["model", "routing", "dataset", "seed", "accuracy", "nll", "calibration_error"]
    changed = [
        f"{kind} {strength}" for kind, p in PERTURBATIONS.items() for strength in p.strengths
    ]
    of_cell = ["images_per_second", "step_bytes", "parameters", "steps", "skipped_updates"]
    writer = csv.DictWriter(buffer, [*names, *changed, *of_cell], lineterminator="\n")
    writer.writeheader()
    for result in results:
        for index, seed in enumerate(result["seeds"]):
            accuracies = [
                of_strength[index]
                for kind in PERTURBATIONS
                for of_strength in result["robustness"][kind][1:]
            ]
            writer.writerow(
                {
                    **{name: result[name] for name in ("model", "routing", "dataset")},
                    "seed": seed,
                    **{
                        name: result[name][index]
                        for name in ("accuracy", "nll", "calibration_error")
                    },
                    **dict(zip(changed, accuracies, strict=True)),
                    **{name: result[name] for name in of_cell},
                }
            )
    return buffer.getvalue()


def _percent(share: float | np.floating) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


def _points(interval: Interval) -> str:
    told = f"{100 * interval.mean:+.2f}"
    if math.isinf(interval.half_width):
        return told
    return f"{told} ± {100 * interval.half_width:.2f}{' *' if interval.tells else ''}"
