"""A trace of some steps, which TensorBoard shows."""

from pathlib import Path
from typing import Any

import jax

from train.distributed import processes
from train.system.files import writing


class Trace:
    """Traces steps of the first process with `jax.profiler`.

    The trace begins with the second dispatch: the first one waits for the compiler.

    Args:
        folder: where the trace goes.
        steps: how many, in whole dispatches; None for no trace.
    """

    def __init__(self, folder: Path, steps: int | None) -> None:
        self._folder = folder
        self._steps = steps if processes.is_first() else None
        self._first: int | None = None
        self._last: int | None = None

    def reached(self, step: int, state: Any) -> None:
        """Begins or ends the trace.

        Args:
            step: the number of steps that were sent.
            state: what comes of them, which is waited for.
        """
        if self._first is None:
            self._first = step
        elif self._last is None and self._steps:
            jax.block_until_ready(state)
            with writing(self._folder):
                jax.profiler.start_trace(self._folder)
            self._last = step + self._steps
        elif self._last is not None and step >= self._last:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Writes the trace, if one is under way."""
        if self._last is not None:
            self._steps = self._last = None
            with writing(self._folder):
                jax.profiler.stop_trace()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
