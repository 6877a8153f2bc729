"""Parts of several claims: the networks that capsules are compared with, and errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from train.config.fit_config import FitConfig
from train.config.settings import ModelConfig
from train.presets import get_preset
from train.report.evaluate import score_run
from train.report.loading import load_split
from train.run.folder import load_run
from train.study.trial.definition import Quantity
from train.system.errors import UserError

BASELINE, CAPSNET = "CNN", "CapsNet"
"""Names of arms."""

PUBLISHED: Mapping[str, Any] = {}
"""Options of the convolutional network of Sabour, Frosst and Hinton 2017, section 5."""

SMALL: Mapping[str, Any] = {"features": [32, 64, 64], "pool": 2, "hidden": [1024, 512]}
"""About as many parameters as the CapsNet of `mnist-small` has."""


def reduced(**settings: Any) -> FitConfig:
    """The recipe `mnist-small` with these settings, its images shifted alone, as in the paper."""
    return get_preset("mnist-small").changed(max_rotation=0.0, max_scaling=0.0, **settings)


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


def with_vectors(
    capsnet: FitConfig, options: Mapping[str, Any], *, loss: str, reconstructs: bool = False
) -> FitConfig:
    """The `baseline` with a vector for each class, squashed, whose length is its presence.

    The vectors are as long as CapsNet's; if it `reconstructs`, a decoder sees that of one class, as
    large as CapsNet's. After Gu, Tresp and Hu 2021, arXiv:2103.15459.
    """
    decoder = capsnet.model.options.get("decoder_hidden", (512, 1024))
    vectors = {"class_dim": capsnet.model.options.get("class_dim", 16)}
    if reconstructs:
        vectors["decoder_hidden"] = list(decoder)
    return baseline(capsnet, {**options, **vectors}, loss=loss)


def summary(folder: Path) -> dict[str, Any]:
    """The result of a run that has ended.

    Raises:
        UserError: it has not, or its result is damaged.
    """
    found = load_run(folder).result()
    if found is None:
        raise UserError(f"{folder} has no whole summary.json: go on with it (fit --resume).")
    return found


def mistakes(name: str, on: str | None = None) -> Quantity:
    """The share of test images that are not recognised, in percent, image by image.

    The images are those of the run's own set if no other is named.
    """

    def of(folder: Path, data_dir: Path | None) -> np.ndarray:
        run = load_run(folder)
        count = run.config.data.test_examples if on is None else None
        examples = load_split(run, on or run.config.data.dataset, data_dir, count=count)
        _, scores = score_run(run, examples)
        wrong = np.zeros(len(scores.predictions))
        wrong[scores.wrong] = 100
        return wrong

    return Quantity(name, of)
