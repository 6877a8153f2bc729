"""Where the numbers of a run go while it runs: a file, and TensorBoard."""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.run.folder import Run
from train.system.files import finite_or_none, writing

try:
    from tensorboardX import SummaryWriter
except ImportError:  # metrics.jsonl holds the same numbers
    SummaryWriter = None


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, each with its `step` and `split`.

    Args:
        path: the file; lines are added to it.
        keep_to_step: later lines, and one that was cut off, are dropped first: they belong to
            steps that will be taken again.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, keep_to_step: int) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= keep_to_step]
        staged = path.with_name(f".{path.name}.new")
        staged.write_text("".join(map(_line, kept)), encoding="utf-8")
        staged.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a line; a number that is not finite becomes null."""
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    values = {k: finite_or_none(v) if isinstance(v, float) else v for k, v in row.items()}
    return json.dumps(values, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a `metrics.jsonl`; none where there is no file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows


class Writers:
    """Sends each line of metrics to the file and to TensorBoard.

    Where tensorboardX is not installed, a line on stderr says that there are no events.

    Args:
        run: the run.
        step: the step that the run begins or goes on from.

    Raises:
        UserError: if the run's folder cannot be written.
    """

    def __init__(self, run: Run, step: int) -> None:
        self._folder = run.folder
        with writing(run.folder):
            self._file = MetricsFile(run.metrics, step)
            self._events = _events(run, step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one line; `split` becomes the TensorBoard group of its numbers."""
        with writing(self._folder):
            self._file.write(row)
            if self._events is None:
                return
            for name, value in row.items():
                if name not in ("step", "split") and isinstance(value, int | float):
                    self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def __enter__(self) -> "Writers":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Writes out what is left."""
        with writing(self._folder):
            try:
                self._file.close()
                if self._events is not None:
                    self._events.close()
            except OSError:
                _abandon(self._events)
                raise


def _events(run: Run, step: int) -> Any:
    """TensorBoard's writer of a run that begins or goes on from a step; None without one."""
    if SummaryWriter is None:
        print(
            "note: TensorBoard events are left out, since tensorboardX is not installed; "
            f"{run.metrics} holds the same numbers.",
            file=sys.stderr,
        )
        return None
    return SummaryWriter(
        str(run.events),
        purge_step=step + 1 if step else None,
        # Two files begun in the same second would have the same name.
        filename_suffix=f".from-{step}",
    )


def _abandon(events: Any) -> None:
    """Ends a TensorBoard writer whose disk takes no more.

    It would try again when the program ends, and complain with two tracebacks. tensorboardX (2.6)
    has no call for this.
    """
    with contextlib.suppress(AttributeError, OSError):
        writer = events.file_writer.event_writer
        writer._closed = True
        writer._worker.stop()
