"""How long the devices had nothing to do."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class Idleness:
    """Measures the time in which everything sent to the devices was done and nothing came.

    A thread waits for the results of each dispatch and notes when they arrive. A dispatch that
    begins to be sent before the results of the one before it has found the devices at work;
    otherwise they have been idle since those arrived. What sending takes is not counted: on a GPU
    it takes as long as a loop of the program runs. Nothing is measured before the first results,
    which wait for compilation, nor in a pause.

    Attributes:
        idle: seconds in which the devices had nothing to do.
        measured: seconds that this is a part of, up to the last pause.
    """

    def __init__(self) -> None:
        self.idle = 0.0
        self.measured = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="idleness")
        self._first: Future[float] | None = None
        self._last: Future[float] | None = None
        self._since: float | None = None  # the end of the last pause
        self._counted_to = 0.0

    @property
    def percent(self) -> float | None:
        """Share of the measured time in which the devices were idle; None where there is none."""
        return 100 * self.idle / self.measured if self.measured else None

    def sending(self) -> None:
        """Notes that the next dispatch is ready and about to be sent."""
        if self._last is not None and self._last.done():
            self._count_to(time.monotonic(), self._last.result())

    def sent(self, results: Any) -> None:
        """Notes that a dispatch has just been sent.

        Args:
            results: arrays that come of it, none of which is donated.
        """
        self._last = self._thread.submit(_arrival, results)
        self._first = self._first or self._last

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens inside; to be entered when everything sent is done."""
        first, last = self._first, self._last
        if first is not None and last is not None and last is not first:
            arrival, now = last.result(), time.monotonic()
            self._count_to(now, arrival)
            self.measured += now - (first.result() if self._since is None else self._since)
        yield
        self._since = self._counted_to = time.monotonic()

    def _count_to(self, now: float, arrival: float) -> None:
        self.idle += now - max(arrival, self._counted_to)
        self._counted_to = now

    def __enter__(self) -> "Idleness":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread, after what has been sent."""
        self._thread.shutdown()


def _arrival(results: Any) -> float:
    # A failed dispatch is told by whoever reads its results; here, only the time counts.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        jax.block_until_ready(results)
    return time.monotonic()
