"""Parts of several claims: the networks that capsules are compared with, and errors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config.fit_config import FitConfig
from train.config.model import ModelConfig
from train.report.evaluate import evaluate
from train.run.folder import load_run
from train.study.trial.definition import Quantity

BASELINE, CAPSNET = "CNN", "CapsNet"
"""Names of arms."""

PUBLISHED: Mapping[str, Any] = {}
"""Options of the convolutional network of Sabour, Frosst and Hinton 2017, section 5."""

SMALL: Mapping[str, Any] = {"features": [32, 64, 64], "pool": 2, "hidden": [1024, 512]}
"""About as many parameters as the CapsNet of `mnist-small` has, and three times its speed."""


def baseline(
    capsnet: FitConfig, options: Mapping[str, Any], *, loss: str = "cross_entropy"
) -> FitConfig:
    """A convolutional network, trained on the same examples for as long as a capsule network.

    `options` are those of the model `cnn`, none for the published one; the learning rate is Adam's
    default, as published.
    """
    return capsnet.changed(
        model="cnn",
        model_options=dict(options),
        routing=ModelConfig.routing,
        routing_options={},
        loss=loss,
        spread_steps=0,
        learning_rate=0.001,
    )


def summary(folder: Path) -> dict[str, Any]:
    """The result of a run that has ended."""
    return json.loads(load_run(folder).summary.read_text(encoding="utf-8"))


def own_error(name: str) -> Quantity:
    """The share of test images of the run's own set that are not recognised, in percent."""
    return Quantity(name, lambda folder, data_dir: summary(folder)["test.error_percent"])


def error_on(dataset: str, name: str) -> Quantity:
    """The share of test images of another set that are not recognised, in percent."""

    def of(folder: Path, data_dir: Path | None) -> float:
        return 100 * (1 - evaluate(folder, dataset=dataset, data_dir=data_dir)["accuracy"])

    return Quantity(name, of)
