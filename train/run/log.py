"""Where the numbers of a run go while it runs: a file, and TensorBoard."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.run.folder import Run
from train.system.files import finite_or_none, write_whole, writing
from train.system.quirks import abandon_events

try:
    from tensorboardX import SummaryWriter
except ImportError:  # metrics.jsonl holds the same numbers
    SummaryWriter = None


class Log:
    """Sends each line of metrics to `metrics.jsonl` and to TensorBoard.

    The file has one JSON object a line, each with its `step` and `split`. Later lines than the step
    that the run begins or goes on from, and one that was cut off, are dropped first: they belong to
    steps that will be taken again. Where tensorboardX is not installed, there are no events, and a
    note on stderr.

    Args:
        run: the run.
        step: the step that the run begins or goes on from.

    Raises:
        UserError: if the run's folder cannot be written.
    """

    def __init__(self, run: Run, step: int) -> None:
        self._folder = run.folder
        with writing(run.folder):
            kept = [row for row in read_metrics(run.metrics) if row["step"] <= step]
            write_whole(run.metrics, "".join(map(_line, kept)).encode())
            self._file = run.metrics.open("a", encoding="utf-8")
            if SummaryWriter is None:
                print(
                    "note: TensorBoard events are left out, since tensorboardX is not installed; "
                    f"{run.metrics} holds the same numbers.",
                    file=sys.stderr,
                )
                self._events: Any = None
            else:
                # Two files begun in the same second would have the same name, but for the suffix.
                self._events = SummaryWriter(
                    str(run.events),
                    purge_step=step + 1 if step else None,
                    filename_suffix=f".from-{step}",
                )

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one line; `split` becomes the TensorBoard group of its numbers.

        In the file, a number that is not finite becomes null.
        """
        with writing(self._folder):
            self._file.write(_line(row))
            self._file.flush()
            if self._events is None:
                return
            for name, value in row.items():
                if name not in ("step", "split") and isinstance(value, int | float):
                    self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self) -> None:
        """Writes out what is left."""
        with writing(self._folder):
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
