"""The log of a run while it trains, a line for each log step and each evaluation; its summary."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from train.distributed import processes
from train.learn.metrics import Mean, merge
from train.learn.network import count_parameters
from train.learn.optimizer import learning_rate
from train.learn.scoring import Scores
from train.learn.trainer import Trainer
from train.loop.stopwatch import Stopwatch
from train.run.folder import Run
from train.run.log import Log, read_metrics
from train.system.files import finite_or_none
from train.system.progress import Progress


class Journal:
    """Shows and writes the results of a run, which have to come in order.

    Every process measures how fast the run is; only the first one shows and writes.

    Args:
        trainer: what trains.
        run: where its numbers go.

    Attributes:
        stopwatch: measures how fast the run is.

    Raises:
        UserError: if the run's folder cannot be written.
    """

    def __init__(self, trainer: Trainer, run: Run) -> None:
        config, start = trainer.config, int(trainer.state.step)
        self._trainer, self._batch_size = trainer, config.schedule.batch_size
        self.stopwatch = Stopwatch(self._batch_size, _seconds_before(run, start))
        self._log: Log | None = None
        if not processes.is_first():
            return
        self._examples, total = len(trainer.dataset.train), trainer.total_steps
        # All at once: a schedule computes on the devices, and would wait there for the steps.
        self._rates = np.asarray(learning_rate(config, self._examples)(np.arange(total)))
        self._unmerged: list[Mapping[str, Mean]] = []
        self._log, self._metrics = Log(run, start), run.metrics
        self._progress = Progress(total, "step", done=start)
        self._shown = start

    def trained(self, step: int, count: int, metrics: Mapping[str, Mean], *, line: bool) -> None:
        """Takes in the results of a dispatch.

        Args:
            step: the step that it ended with.
            count: its number of steps.
            metrics: of these steps, arrived from the devices.
            line: whether a line is due.
        """
        self.stopwatch.arrived(count)
        if line:
            self.stopwatch.lap()
        if self._log is None:
            return
        self._unmerged.append(metrics)
        if not line:
            return
        values, rate = merge(self._unmerged), self.stopwatch.recent_rate
        self._unmerged.clear()
        self._progress.advance(
            step - self._shown,
            f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.2%}, {rate:.0f} images/s",
        )
        self._shown = step
        self._log.write(
            {
                "step": step,
                "split": "train",
                **values,
                "epoch": step * self._batch_size / self._examples,
                "learning_rate": float(self._rates[step - 1]),
                "images_per_second": rate,
                "wall_seconds": self.stopwatch.wall_seconds,
            }
        )

    def scored(self, step: int, split: Literal["validation", "test"], scores: Scores) -> None:
        """Takes in the result of an evaluation."""
        if self._log is None:
            return
        accuracy, loss = scores.metrics["accuracy"], scores.metrics["loss"]
        self._progress.note(f"step {step}: {split} accuracy {accuracy:.2%}, loss {loss:.4f}")
        row = {"step": step, "split": split, **scores.metrics}
        if split != "test" or row not in read_metrics(self._metrics):  # of a run that had ended
            self._log.write(row)

    def summary(self, validated: Scores | None, tested: Scores) -> dict[str, Any]:
        """What `summary.json` holds of the run, which has ended.

        Args:
            validated: the scores of the last step on the validation examples, if there are any.
            tested: its scores on the test split.
        """
        state, config = self._trainer.state, self._trainer.config
        devices, stop_at = self._trainer.mesh.devices, config.schedule.stop_at_accuracy
        return {
            "preset": config.preset,
            "dataset": config.data.dataset,
            "steps": int(state.step),
            "stopped_at_accuracy": validated is not None and validated.reach(stop_at),
            "parameters": count_parameters(state.params),
            **(_summary("validation", validated) if validated else {}),
            **_summary("test", tested),
            "test.checkpoint": "last",
            "skipped_updates": int(state.skipped.total),
            "images_per_second": self.stopwatch.rate,
            "wall_seconds": self.stopwatch.wall_seconds,
            "devices": devices.size,
            "processes": jax.process_count(),
            "device_kind": devices.flat[0].device_kind,
            "jax_version": jax.__version__,
        }

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._progress.__exit__()
            self._log.close()


def _seconds_before(run: Run, step: int) -> float:
    """Wall time that a resumed run had taken when it was at this step."""
    rows = (row for row in read_metrics(run.metrics) if row["step"] <= step)
    return max((row["wall_seconds"] for row in rows if "wall_seconds" in row), default=0.0)


def _summary(split: str, scores: Scores) -> dict[str, Any]:
    examples = len(scores.predictions)
    return {
        **{f"{split}.{name}": finite_or_none(value) for name, value in scores.metrics.items()},
        f"{split}.error_percent": 100 * len(scores.wrong) / examples,
        f"{split}.examples": examples,
    }
