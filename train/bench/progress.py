"""How far a benchmark is: a bar on a terminal, plain lines elsewhere."""

import sys
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Counts what is done and says what is under way.

    Args:
        total: how much there is to do.
        stream: where it goes, the standard error if not given.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total
        self._done = 0
        self._bar = (
            tqdm(total=total, file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def begin(self, what: str) -> None:
        """Says what comes next."""
        if self._bar is not None:
            self._bar.set_description(what)
        else:
            print(f"{self._done + 1}/{self._total}: {what}", file=self._stream, flush=True)

    def done(self) -> None:
        """Counts one."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def __enter__(self) -> "Progress":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
