"""What of CapsNet makes it robust? A convolutional network gets its parts one by one.

Gu, Tresp and Hu 2021, arXiv:2103.15459.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.config.fit_config import FitConfig
from train.presets import get_preset
from train.run.folder import load_run
from train.study.trial.adversarial import PGD, success
from train.study.trial.baselines import (
    BASELINE,
    CAPSNET,
    PUBLISHED,
    SMALL,
    baseline,
    mistakes,
    with_vectors,
)
from train.study.trial.definition import Arm, Budget, Claim, Contrast, Quantity

TRANSFORMED = "error on transformed digits, %"
MISTAKEN = "recognised digits that PGD has mistaken, %"
OVERLAPPING = "error on overlapping digits, %"
ALL = f"{BASELINE}, all"
DIGITS, PAIRS = "single digits", "pairs"


def _networks(
    capsnet: FitConfig, network: Mapping[str, Any], cross_entropy: str
) -> dict[str, FitConfig]:
    return {
        BASELINE: baseline(capsnet, network, loss=cross_entropy),
        f"{BASELINE}, squash": with_vectors(capsnet, network, loss=cross_entropy),
        f"{BASELINE}, squash, margin": with_vectors(capsnet, network, loss="margin"),
        ALL: with_vectors(capsnet, network, loss="margin", reconstructs=True),
        CAPSNET: capsnet,
    }


def arms(budget: Budget) -> Sequence[Arm]:
    """The baseline, with squash, with the margin loss, with a decoder, and CapsNet.

    Each once for digits at random places, and once for pairs of digits.
    """
    suffix = "" if budget == "paper" else "-small"
    digits = get_preset(f"affnist{suffix}").changed(stop_at_accuracy=None)
    pairs = get_preset(f"multi_mnist{suffix}")
    if budget != "paper":
        steps = 100 if budget == "small" else 2_000
        digits = digits.changed(steps=steps, evaluate_every=steps)
        pairs = pairs.changed(steps=steps, evaluate_every=steps)
    network = PUBLISHED if budget == "paper" else SMALL
    both = {
        DIGITS: _networks(digits, {"pool": 2, **network}, "cross_entropy"),
        PAIRS: _networks(pairs, {"pool": 2, **network, "dropout": 0.0}, "sigmoid_cross_entropy"),
    }
    return [
        Arm(f"{name}, {kind}", config)
        for kind, networks in both.items()
        for name, config in networks.items()
    ]


def _of(kind: str, quantity: Quantity) -> Quantity:
    """A quantity of the networks that have learned from this kind of images alone."""

    def of(folder: Path, data_dir: Path | None) -> float | np.ndarray:
        is_pairs = load_run(folder).config.data.dataset == "multi_mnist"
        return quantity.of(folder, data_dir) if is_pairs == (kind == PAIRS) else math.nan

    return Quantity(quantity.name, of)


CLAIM = Claim(
    says="Capsules recognise digits that are transformed, overlap or are attacked better than a "
    "convolutional network, also than one with CapsNet's squash, loss and decoder.",
    source="claimed by Sabour, Frosst and Hinton 2017, arXiv:1710.09829; denied by Gu, Tresp and "
    "Hu 2021, arXiv:2103.15459, whose networks are other ones; the ranges of the transformations "
    "are ours",
    arms=arms,
    quantities=[
        _of(DIGITS, mistakes(TRANSFORMED, "affnist-generated")),
        _of(DIGITS, Quantity(MISTAKEN, success(PGD, "mistaken").of)),
        _of(PAIRS, mistakes(OVERLAPPING)),
    ],
    contrasts=[
        Contrast(f"{CAPSNET}, {kind}", f"{other}, {kind}", quantity)
        for kind, quantity in ((DIGITS, TRANSFORMED), (DIGITS, MISTAKEN), (PAIRS, OVERLAPPING))
        for other in (BASELINE, ALL)
    ],
)
