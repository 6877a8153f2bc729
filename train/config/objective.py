"""What is minimised."""

from dataclasses import dataclass

from train.config.setting import NOT_NEGATIVE, POSITIVE, Checked, setting

MASKS = ("label", "longest")
LOSSES = ("margin", "spread", "cross_entropy", "sigmoid_cross_entropy")


@dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """What is minimised.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    loss: str = setting("margin", "what tells classes apart", LOSSES)
    spread_steps: int = setting(
        0,
        "steps in which the margin of a spread loss grows from 0.2 to 0.9 (0: always 0.9)",
        bound=NOT_NEGATIVE,
    )
    margin_of: str = setting(
        "length", "the margin loss sees lengths, or their softmax", ("length", "softmax")
    )
    margin_power: int = setting(2, "power of the margin's hinges", bound=POSITIVE)
    margin_weight: float = setting(
        1.0, "weight of the loss that tells classes apart", bound=NOT_NEGATIVE
    )
    reconstruction_weight: float = setting(
        0.0005, "weight of the summed squared reconstruction error", bound=NOT_NEGATIVE
    )
    mask_in_training: str = setting("label", "class whose capsule is decoded in training", MASKS)
    mask_in_test: str = setting("longest", "class whose capsule is decoded in test", MASKS)
