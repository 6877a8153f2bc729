"""How far a comparison is: a bar of steps on a terminal, a line for each cell elsewhere."""

import sys
import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Counts the steps of all cells that are still to be trained.

    Args:
        cells: how many there are.
        steps: that all of them take together.
        stream: where it goes, the standard error if not given.
    """

    def __init__(self, cells: int, steps: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._cells, self._steps = cells, steps
        self._cell = self._done = 0
        self._start = time.monotonic()
        self._bar = (
            tqdm(total=steps, unit="step", file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def begin(self, name: str) -> None:
        """Says which cell comes next."""
        self._cell += 1
        told = f"[{self._cell}/{self._cells}] {name}"
        if self._bar is not None:
            self._bar.set_description_str(told)
        else:
            print(told, file=self._stream, flush=True)

    def step(self, count: int) -> None:
        """Counts steps."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)

    def end(self, result: str) -> None:
        """Tells what came of the cell."""
        if self._bar is not None:
            self._bar.write(result, file=self._stream)
            return
        seconds = (time.monotonic() - self._start) / max(self._done, 1)
        left = int(seconds * (self._steps - self._done))
        minutes, rest = divmod(left, 60)
        print(f"{result}; about {minutes}:{rest:02d} left", file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
