"""How long the devices had nothing to do."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class Idleness:
    """Measures the time in which everything sent to the devices was done and nothing came.

    A thread waits for the results of each dispatch and notes when they arrive. A dispatch that is
    sent before the results of the one before it has found the devices at work; otherwise they have
    been idle since those arrived.

    Attributes:
        seconds: idle between two dispatches, pauses left out.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="idleness")
        self._arrival: Future[float] | None = None
        self._counted_to = 0.0

    def sent(self, results: Any) -> None:
        """Notes that a dispatch has just been sent.

        Args:
            results: arrays that come of it, none of which is donated.
        """
        self._count()
        self._arrival = self._thread.submit(_arrival, results)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no idleness; to be entered when all results are there."""
        if self._arrival is not None:
            self._arrival.result()  # which the thread may be about to note
        self._count()
        yield
        self._counted_to = time.monotonic()

    def _count(self) -> None:
        if self._arrival is not None and self._arrival.done():
            now = time.monotonic()
            self.seconds += now - max(self._arrival.result(), self._counted_to)
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
