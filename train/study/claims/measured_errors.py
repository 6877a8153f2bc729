"""Errors of a run's network, on the test split of its own data set and of others."""

import json
from pathlib import Path

from train.report.evaluate import evaluate
from train.run.folder import load_run
from train.study.claims.definition import Quantity


def own_error(name: str) -> Quantity:
    """The share of test images of the run's own set that are not recognised, in percent."""

    def of(folder: Path, data_dir: Path | None) -> float:
        del data_dir
        summary = json.loads(load_run(folder).summary.read_text(encoding="utf-8"))
        return summary["test.error_percent"]

    return Quantity(name, of)


def error_on(dataset: str, name: str) -> Quantity:
    """The same of another set."""

    def of(folder: Path, data_dir: Path | None) -> float:
        return 100 * (1 - evaluate(folder, dataset=dataset, data_dir=data_dir)["accuracy"])

    return Quantity(name, of)
