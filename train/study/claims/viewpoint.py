"""Section 6.1 of the paper on matrix capsules: they recognise toys from new viewpoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.presets import get_preset
from train.run.folder import load_run
from train.study.trial.baselines import baseline, mistakes
from train.study.trial.definition import Arm, Budget, Claim, Contrast, Quantity

NOVEL = "error on novel viewpoints, %"
FAMILIAR = "error on familiar viewpoints, %"

# The paper's errors: novel viewpoints, and familiar ones, on which both were made alike.
_PAPER = {
    ("CNN", "azimuth"): (20.0, 3.7),
    ("CapsNet, EM", "azimuth"): (13.5, 3.7),
    ("CNN", "elevation"): (17.8, 4.3),
    ("CapsNet, EM", "elevation"): (12.3, 4.3),
}


def arms(budget: Budget) -> Sequence[Arm]:
    """The baseline of section 6 and matrix capsules, on the two splits of viewpoints."""
    capsnet = get_preset("smallnorb-matrix_capsnet")
    network = {"features": [32, 64], "kernel_size": 5, "pool": 2, "hidden": [1024]}
    if budget != "paper":
        small = {"conv_features": 16, "primary_types": 4, "caps_types": [4, 4]}
        capsnet = capsnet.changed(
            model_options={**capsnet.model.options, **small},
            steps=300 if budget == "small" else 3_000,
            evaluate_every=300,
        )
        network = {**network, "features": [16, 16], "hidden": [64]}
    configs = {"CNN": baseline(capsnet, network), "CapsNet, EM": capsnet}
    return [
        Arm(
            f"{network}, {viewpoint}",
            configs[network].changed(dataset=f"smallnorb-{viewpoint}"),
            {NOVEL: novel, FAMILIAR: familiar},
        )
        for (network, viewpoint), (novel, familiar) in _PAPER.items()
    ]


def _familiar_error(folder: Path, data_dir: Path | None) -> float | np.ndarray:
    dataset = f"{load_run(folder).config.data.dataset}-familiar"
    return mistakes(FAMILIAR, dataset).of(folder, data_dir)


CLAIM = Claim(
    says="Capsules recognise toys from viewpoints that they have not learned from better than a "
    "convolutional network that is as accurate on those they have.",
    source="Hinton, Sabour and Frosst 2018, section 6.1 and Table 2; there training was stopped "
    "where both were alike on familiar viewpoints, here both columns are shown",
    arms=arms,
    quantities=[mistakes(NOVEL), Quantity(FAMILIAR, _familiar_error)],
    contrasts=[
        Contrast(f"CapsNet, EM, {viewpoint}", f"CNN, {viewpoint}", NOVEL)
        for viewpoint in ("azimuth", "elevation")
    ],
)
