"""When a run has learnt enough, or no more: both by its accuracy on validation images."""

from collections.abc import Iterable

from train.config.settings import ScheduleConfig


class EarlyEnd:
    """Looks at each evaluation of a run for a reason to end it before its last step.

    It has seen the accuracies of the evaluations before, in their order.
    """

    def __init__(self, schedule: ScheduleConfig, before: Iterable[float] = ()) -> None:
        self._stop_at, self._patience = schedule.stop_at_accuracy, schedule.patience
        self._last = self._best = -1.0
        self._without = 0  # evaluations in a row that were no better
        for accuracy in before:
            self.add(accuracy)

    def add(self, accuracy: float) -> None:
        """Looks at one more evaluation."""
        self._without = 0 if accuracy > self._best else self._without + 1
        self._last, self._best = accuracy, max(self._best, accuracy)

    @property
    def is_possible(self) -> bool:
        """Whether anything but the last step ends the run."""
        return self._stop_at is not None or self._patience is not None

    @property
    def reasons(self) -> dict[str, bool]:
        """Whether each reason is given: an accuracy that was asked for, or no better one for long.

        By the names that they have in `summary.json`.
        """
        return {
            "stopped_at_accuracy": self._stop_at is not None and self._last >= self._stop_at,
            "stopped_by_patience": self._patience is not None and self._without >= self._patience,
        }

    @property
    def is_due(self) -> bool:
        """Whether the run ends."""
        return any(self.reasons.values())
