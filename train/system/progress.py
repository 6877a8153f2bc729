"""How far a command is: a bar on a terminal, now and then a plain line elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from tqdm import tqdm

from train.system.printing import escaped, terminal

T = TypeVar("T")

PLAIN_SECONDS = 10.0
"""Between two lines, where there is no terminal."""

_BAR = "{desc}{n_fmt}/{total_fmt}{unit} |{bar}| {remaining} left{postfix}"


class Progress(AbstractContextManager["Progress"]):
    """Counts what is done, and shows on stderr what is under way and how long it will take.

    There are `total` units to do, of which some were `done` before.
    """

    def __init__(self, total: int, unit: str = "it", *, done: int = 0) -> None:
        self._total, self._unit, self._done = total, unit, done
        self._next_line = time.monotonic()
        self._begun: tuple[float, int] | None = None  # after the first, which waited for compiling
        self._bar = (
            tqdm(
                total=total,
                initial=done,
                unit=f" {unit}",
                dynamic_ncols=True,
                file=terminal(),
                bar_format=_BAR,
            )
            if sys.stderr.isatty()
            else None
        )

    @property
    def left(self) -> str:
        """The time that the rest will take, as `minutes:seconds`; "?" before it is known."""
        if self._begun is None or self._done == self._begun[1]:
            return "?"
        seconds = (time.monotonic() - self._begun[0]) / (self._done - self._begun[1])
        return tqdm.format_interval(seconds * (self._total - self._done))

    def begin(self, what: str) -> None:
        """Shows what comes next; nothing ends that."""
        if self._bar is not None:
            self._bar.set_description_str(f"{escaped(what)}: " if what else "")
        elif what:
            self.note(what)

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Counts what was done, and shows figures of it, with ", " between them.

        Of these, the first are shown that a terminal has the width for.
        """
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(self._fitting(escaped(figures)), refresh=False)
            self._bar.update(count)
        elif figures and (time.monotonic() >= self._next_line or self._done == self._total):
            self._next_line = time.monotonic() + PLAIN_SECONDS
            self.note(f"{self._unit} {self._done}/{self._total}: {figures}, {self.left} left")
        self._begun = self._begun or (time.monotonic(), self._done)

    def _fitting(self, figures: str) -> str:
        """The first of some figures, as many as stand beside the numbers of the bar."""
        width = getattr(self._bar, "ncols", None) or math.inf
        fixed = 2 * len(str(self._total)) + len(f"/ {self._unit} |#| 1:00:00 left, ")
        while figures and fixed + len(figures) > width:
            figures = figures.rpartition(", ")[0]
        return figures

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        if self._bar is not None:
            self._bar.write(escaped(text), file=terminal())
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def each(items: Iterable[T], total: int, name: Callable[[T], str]) -> Iterator[T]:
    """Goes through so many items and shows the name of each while it is at work."""
    with Progress(total) as progress:
        for number, item in enumerate(items, start=1):
            progress.begin(f"[{number}/{total}] {name(item)}")
            yield item
            progress.advance()
