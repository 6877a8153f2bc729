"""What a run tells while it trains: a line of metrics for each log step and each evaluation."""

from collections.abc import Mapping

import numpy as np

from train.learn.metrics import Mean, merge
from train.learn.optimizer import learning_rate
from train.learn.program import Program
from train.learn.scoring import Evaluation
from train.loop.stopwatch import Stopwatch
from train.run.folder import Run
from train.run.log import Writers
from train.system.progress import Progress


class Journal:
    """Tells the results of a run, which have to come in order.

    Args:
        program: what trains.
        run: where its numbers go.
        watch: measures how fast it is.
        silent: tell nothing, and only measure how fast it is: another process tells.

    Raises:
        UserError: if the run's folder cannot be written.
    """

    def __init__(
        self, program: Program, run: Run, watch: Stopwatch, *, silent: bool = False
    ) -> None:
        self._watch = watch
        self._silent = silent
        if silent:
            return
        config = program.config
        examples, total = len(program.dataset.train), program.total_steps
        self._batch_size, self._examples = config.schedule.batch_size, examples
        # All at once: a schedule computes on the devices, and would wait there for the steps.
        self._rates = np.asarray(learning_rate(config, examples)(np.arange(total)))
        self._unmerged: list[Mapping[str, Mean]] = []
        start = int(program.state.step)
        self._writers = Writers(run, start)
        self._progress = Progress(total, "step", done=start)
        self._shown = start

    def trained(self, step: int, count: int, metrics: Mapping[str, Mean], *, log: bool) -> None:
        """Takes in the results of a dispatch.

        Args:
            step: the step that it ended with.
            count: its number of steps.
            metrics: of these steps, arrived from the devices.
            log: whether a line is due.
        """
        self._watch.arrived(count)
        if log:
            self._watch.lap()
        if self._silent:
            return
        self._unmerged.append(metrics)
        if not log:
            return
        values = merge(self._unmerged)
        self._unmerged.clear()
        self._progress.advance(
            step - self._shown,
            f"loss {values['loss']:.4f}, accuracy {values['accuracy']:.2%}, "
            f"{self._watch.recent_rate:.0f} images/s",
        )
        self._shown = step
        self._writers.write(
            {
                "step": step,
                "split": "train",
                **values,
                "epoch": step * self._batch_size / self._examples,
                "learning_rate": float(self._rates[step - 1]),
                "images_per_second": self._watch.recent_rate,
                "wall_seconds": self._watch.wall_seconds,
            }
        )

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Tells the result of an evaluation."""
        if self._silent:
            return
        accuracy, loss = evaluation.metrics["accuracy"], evaluation.metrics["loss"]
        self._progress.note(f"step {step}: test accuracy {accuracy:.2%}, test loss {loss:.4f}")
        self._writers.write({"step": step, "split": "test", **evaluation.metrics})

    def __enter__(self) -> "Journal":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the bar and writes out what is left."""
        if self._silent:
            return
        self._progress.__exit__()
        self._writers.__exit__()
