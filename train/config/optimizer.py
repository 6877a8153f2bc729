"""What turns gradients into updates."""

from dataclasses import dataclass

from train.config.setting import BELOW_ONE, BETWEEN, NOT_NEGATIVE, POSITIVE, Checked, setting
from train.system.errors import UserError

OPTIMIZERS = ("adam", "adamw", "lamb", "lars", "muon", "sgd")


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """What turns gradients into updates.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    name: str = setting("adam", "what turns gradients into updates", OPTIMIZERS, name="optimizer")
    weight_decay: float = setting(
        0.0, "weight decay of all but adam, on matrices only", bound=NOT_NEGATIVE
    )
    momentum: float = setting(0.9, "momentum of sgd; 0 for none", bound=BELOW_ONE)
    clip_norm: float | None = setting(
        None, "longest gradient; a longer one is shortened to it", bound=POSITIVE
    )
    ema_decay: float | None = setting(
        None,
        "share that a moving average of the weights keeps in a step; it is then what is evaluated",
        bound=BETWEEN,
    )
    max_skipped: int = setting(
        10,
        "updates skipped in a row, because loss or gradient is not finite, that a run bears",
        bound=NOT_NEGATIVE,
    )

    def __post_init__(self) -> None:
        """Checks every setting, and that the optimiser has a weight decay where one is given."""
        super().__post_init__()
        if self.weight_decay and self.name == "adam":
            raise UserError(
                f"--weight-decay is {self.weight_decay}, but adam has none: choose the --optimizer "
                "adamw, lamb, lars, muon or sgd."
            )
