"""A profile of some steps, which TensorBoard shows."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from train.distributed import processes
from train.system.files import writing


class Profiler(AbstractContextManager["Profiler"]):
    """Records steps of the first process, from its second dispatch on: the first is compiled.

    They are so many, in whole dispatches; None for no profile.
    """

    def __init__(self, folder: Path, steps: int | None) -> None:
        self._folder = folder
        self._steps = steps if processes.is_first() else None
        self._last: int | None = None
        self._has_begun = False

    def reached(self, step: int, state: Any) -> None:
        """Begins or ends to record where it is time to, and waits for the state after `step`."""
        if self._last is not None and step >= self._last:
            jax.block_until_ready(state)
            self.__exit__()
        elif self._steps is not None and self._last is None and self._has_begun:
            jax.block_until_ready(state)
            with writing(self._folder):
                jax.profiler.start_trace(self._folder)
            self._last = step + self._steps
        self._has_begun = True

    def __exit__(self, error: object = None, *_: object) -> None:
        if self._last is not None:
            self._steps = self._last = None
            with writing(self._folder):
                jax.profiler.stop_trace()
        elif self._steps is not None and error is None:
            print(
                "note: no profile is recorded, which begins after the first steps that are sent at "
                "once: there were no others",
                file=sys.stderr,
            )
