"""The log of a run: a line for each log step and each evaluation, in a file and in TensorBoard."""

import json
import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from train.distributed import processes
from train.learn.metrics import Mean, merge
from train.learn.network import count_parameters
from train.learn.optimizer import learning_rate
from train.learn.scoring import Scores
from train.learn.trainer import Trainer
from train.run.folder import Run
from train.run.stopwatch import Stopwatch
from train.system.files import finite_or_none, write_whole, writing
from train.system.progress import Progress
from train.system.quirks import abandon_events, event_writer

RATES = 2**16
"""Learning rates that are computed at a time."""


class Log(AbstractContextManager["Log"]):
    """Shows and writes the results of a run, which have to come in order.

    Each line goes to `metrics.jsonl`, as one JSON object with its `step` and `split`, and to
    TensorBoard. Later lines than the step that the run begins or goes on from, and one that was cut
    off, are dropped first: they belong to steps that will be taken again. Where tensorboardX is not
    installed, there are no events, and a note on stderr.

    Every process measures with `stopwatch` how fast the run is; only the first shows and writes.

    Raises:
        UserError: if the run's folder cannot be written.
    """

    def __init__(self, trainer: Trainer, run: Run) -> None:
        config, start = trainer.config, int(trainer.state.step)
        self._trainer, self._run, self._batch_size = trainer, run, config.schedule.batch_size
        kept = [row for row in read_metrics(run.metrics) if row["step"] <= start]
        seconds = max((row.get("wall_seconds") or 0.0 for row in kept), default=0.0)
        trained = [row for row in kept if row.get("split") == "train"]
        begun = [0, *(row["step"] for row in trained)]
        laps = [
            (row["step"] - before, row["images_per_second"])
            for before, row in zip(begun, trained, strict=False)
            if row.get("images_per_second")  # none of steps that were compiled for
        ]
        self.stopwatch = Stopwatch(self._batch_size, seconds, laps)
        self._writes = processes.is_first()
        if not self._writes:
            return
        self._examples, total = len(trainer.dataset.train), trainer.total_steps
        self._learning_rate = jax.jit(learning_rate(config, self._examples))
        self._skipped = int(trainer.state.skipped.total)
        self._first_rate = start - self._skipped
        self._rates = self._rates_from(self._first_rate)
        self._unmerged: list[Mapping[str, Mean]] = []
        self._progress, self._shown = Progress(total, "step", done=start), start
        self._progress.begin("compiling")
        self._events: Any = None
        with writing(run.folder):
            write_whole(run.metrics, "".join(map(_line, kept)).encode())
            self._file = run.metrics.open("a", encoding="utf-8")
            writer = event_writer()
            if writer is None:  # metrics.jsonl holds the same numbers
                print(
                    "note: TensorBoard events are left out, since tensorboardX is not installed; "
                    f"{run.metrics} holds the same numbers.",
                    file=sys.stderr,
                )
            else:
                # Two files begun in the same second would have the same name, but for the suffix.
                self._events = writer(
                    str(run.events),
                    purge_step=start + 1 if start else None,
                    filename_suffix=f".from-{start}",
                )

    def trained(self, step: int, count: int, metrics: Mapping[str, Mean], *, line: bool) -> None:
        """Takes in the metrics of a dispatch of so many steps up to `step`, which have arrived.

        `line` is whether a line is due.
        """
        self.stopwatch.arrived(count)
        if line:
            self.stopwatch.lap()
        if not self._writes:
            return
        self._skipped += int(np.asarray(metrics["skipped"].total).sum())
        self._unmerged.append(metrics)
        if not line:
            return
        values, rate = merge(self._unmerged), self.stopwatch.recent_rate
        self._progress.begin("")
        self._unmerged.clear()
        self._progress.advance(
            step - self._shown,
            f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.2%}, {rate:.0f} images/s",
        )
        self._shown = step
        self._write(
            {
                "step": step,
                "split": "train",
                **values,
                "epoch": step * self._batch_size / self._examples,
                "learning_rate": self._rate(max(step - self._skipped - 1, 0)),
                "images_per_second": rate,
                "wall_seconds": self.stopwatch.wall_seconds,
            }
        )

    def _rate(self, update: int) -> float:
        """The learning rate of an update, from 0; a step that was skipped is none."""
        if not 0 <= update - self._first_rate < RATES:
            self._rates, self._first_rate = self._rates_from(update), update
        return float(self._rates[update - self._first_rate])

    def _rates_from(self, update: int) -> np.ndarray:
        # Many at once: a schedule computes on the devices, and would wait there for the steps.
        return np.asarray(self._learning_rate(np.arange(update, update + RATES)))

    def scored(self, step: int, split: Literal["validation", "test"], scores: Scores) -> None:
        """Takes in the result of an evaluation."""
        if not self._writes:
            return
        accuracy, loss = scores.metrics["accuracy"], scores.metrics["loss"]
        self._progress.note(f"step {step}: {split} accuracy {accuracy:.2%}, loss {loss:.4f}")
        row = {"step": step, "split": split, **scores.metrics}
        if split != "test" or row not in read_metrics(self._run.metrics):  # of one that had ended
            self._write(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        """Writes one line; `split` becomes the TensorBoard group of its numbers."""
        with writing(self._run.folder):
            self._file.write(_line(row))
            self._file.flush()
            if self._events is None:
                return
            for name, value in row.items():
                if name not in ("step", "split") and isinstance(value, int | float):
                    self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def summary(
        self, validated: Scores | None, tested: Scores, early: Mapping[str, bool]
    ) -> dict[str, Any]:
        """What `summary.json` holds of the run, which has ended with these scores.

        `early` has by its name there whether the run ended for each reason to end early.
        """

        def of_split(split: str, scores: Scores) -> dict[str, Any]:
            means = {f"{split}.{k}": finite_or_none(v) for k, v in scores.metrics.items()}
            examples = len(scores.predictions)
            wrong = {f"{split}.error_percent": 100 * len(scores.wrong) / examples}
            return {**means, **wrong, f"{split}.examples": examples}

        state, config, names = self._trainer.state, self._trainer.config, self._run.class_names
        devices = self._trainer.mesh.devices
        return {
            "preset": config.preset,
            "dataset": config.data.dataset,
            "steps": int(state.step),
            **early,
            "parameters": count_parameters(state.params),
            **(of_split("validation", validated) if validated else {}),
            **of_split("test", tested),
            "test.checkpoint": "last",
            "skipped_updates": int(state.skipped.total),
            "images_per_second": self.stopwatch.rate,
            "wall_seconds": self.stopwatch.wall_seconds,
            "devices": devices.size,
            "processes": jax.process_count(),
            "device_kind": devices.flat[0].device_kind,
            "jax_version": jax.__version__,
            "test.classes": tested.by_class(len(names)).rows(names),
        }

    def __exit__(self, *_: object) -> None:
        if not self._writes:
            return
        self._progress.__exit__()
        with writing(self._run.folder):
            try:
                self._file.close()
                if self._events is not None:
                    self._events.close()
            except OSError:
                abandon_events(self._events)
                raise


def _line(row: Mapping[str, Any]) -> str:
    values = {k: finite_or_none(v) if isinstance(v, float) else v for k, v in row.items()}
    return json.dumps(values, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` that are whole; none where there is no file.

    Each has a `step` and a `split`; all else are finite numbers, or None. Others, of a file that
    was cut off or comes from elsewhere, are left out.
    """
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and _is_row(**row):
            rows.append(row)
    return rows


def _is_row(step: Any = None, split: Any = None, **numbers: Any) -> bool:
    return (
        (type(step) is int and 0 <= step < 2**31)
        and split in ("train", "validation", "test")
        and all(
            number is None
            or (type(number) is int and abs(number) < 2**63)
            or (type(number) is float and math.isfinite(number))
            for number in numbers.values()
        )
    )
