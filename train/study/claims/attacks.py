"""Capsule networks give away what is made to be mistaken: Frosst, Sabour and Hinton 2018."""

from collections.abc import Sequence

from train.presets import get_preset
from train.study.trial.adversarial import ATTACKS, Outcome, success
from train.study.trial.baselines import (
    BASELINE,
    CAPSNET,
    PUBLISHED,
    SMALL,
    baseline,
    reduced,
    with_vectors,
)
from train.study.trial.definition import Arm, Budget, Claim, Contrast

RECONSTRUCTING = "CNN that reconstructs"


def arms(budget: Budget) -> Sequence[Arm]:
    """The baseline, one that reconstructs as CapsNet does, and CapsNet."""
    base = get_preset("mnist") if budget == "paper" else reduced()
    if budget == "small":
        base = base.changed(train_examples=20_000, epochs=3)
    elif budget == "medium":
        base = base.changed(epochs=5)
    network = PUBLISHED if budget == "paper" else SMALL
    return [
        Arm(BASELINE, baseline(base, network)),
        Arm(RECONSTRUCTING, with_vectors(base, network, loss="margin", reconstructs=True)),
        Arm(CAPSNET, base),
    ]


CLAIM = Claim(
    says="Images that are made to be mistaken look unlike what a capsule network reconstructs of "
    "them, and are given away by it, more often than by a convolutional network that reconstructs.",
    source="Frosst, Sabour and Hinton 2018, arXiv:1811.06969; there the same detector works for "
    "convolutional networks that reconstruct, too; its attacks are of several kinds and its "
    "figures are not repeated here",
    arms=arms,
    quantities=[success(attack, field) for attack in ATTACKS for field in Outcome._fields],
    contrasts=[
        contrast
        for attack in ATTACKS
        for contrast in (
            Contrast(RECONSTRUCTING, CAPSNET, f"{attack.name}: detected, %"),
            Contrast(CAPSNET, RECONSTRUCTING, f"{attack.name}: undetected, %"),
        )
    ],
)
