"""The course of a run: batches, length, learning rate, and when it is measured and kept."""

import math
from dataclasses import dataclass

from train.config.setting import BETWEEN, NOT_NEGATIVE, POSITIVE, Checked, setting

DECAYS = ("exponential", "staircase", "cosine", "constant")
SCALINGS = ("none", "linear", "sqrt")


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """The course of a run: batches, length, learning rate, and when it is measured and kept.

    Raises:
        UserError: on a value out of its range or a name that does not exist.
    """

    batch_size: int = setting(128, "images in a step, over all devices", bound=POSITIVE)
    micro_batches: int = setting(
        1,
        "parts in which a device takes its share of a batch, one after the other, to save memory",
        bound=POSITIVE,
    )
    epochs: float = setting(10.0, "passes over the training set", bound=POSITIVE)
    steps: int | None = setting(None, "training steps, instead of epochs", bound=POSITIVE)
    stop_at_accuracy: float | None = setting(
        None,
        "share of validation images, from 0 to 1: end with the first evaluation that has as many "
        "right",
        bound=BETWEEN,
    )
    learning_rate: float = setting(0.001, "learning rate at its highest", bound=POSITIVE)
    lr_scaling: str = setting(
        "none", "how the learning rate grows with the batch, from --base-batch on", SCALINGS
    )
    base_batch: int = setting(
        128, "batch that --learning-rate is for, if it is scaled", bound=POSITIVE
    )
    warmup_steps: int = setting(
        0, "steps in which the learning rate rises from zero", bound=NOT_NEGATIVE
    )
    decay: str = setting(
        "exponential", "how the learning rate falls after that", DECAYS, name="schedule"
    )
    decay_rate: float = setting(
        0.3,
        "factor on the learning rate every --decay-steps steps, smoothly if exponential, at once "
        "if staircase",
        bound=POSITIVE,
    )
    decay_steps: int | None = setting(
        None,
        "steps in which the learning rate falls by --decay-rate, or to zero on a cosine (if not "
        "given, what the warm-up leaves of the run)",
        bound=POSITIVE,
    )
    learning_rate_floor: float = setting(
        0.0, "below this the learning rate does not fall", bound=NOT_NEGATIVE
    )
    log_every: int = setting(10, "steps between two lines of metrics", bound=POSITIVE)
    evaluate_every: int | None = setting(
        None, "steps between two evaluations (if not given, an epoch)", bound=POSITIVE
    )
    checkpoint_every: int = setting(200, "steps between two checkpoints", bound=POSITIVE)

    def total_steps(self, training_examples: int) -> int:
        """Length of the run: `steps`, or the steps in which `epochs` epochs have been seen."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * training_examples / self.batch_size))

    @property
    def rate_follows_length(self) -> bool:
        """Whether the learning rate depends on how long the run is."""
        return self.decay != "constant" and self.decay_steps is None

    def evaluation_interval(self, training_examples: int) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every or math.ceil(training_examples / self.batch_size)
