"""Work that waits for results, so that the devices need not wait for it."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax


class DeferredWork(AbstractContextManager["DeferredWork"]):
    """Work with results of the devices, put off until these have more to do, and done in order.

    Used as a context, it leaves nothing undone, whatever ends the body: the results that the
    devices still bring are waited for.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, Callable[[], None]]] = deque()

    def add(self, results: Any, work: Callable[[], None]) -> None:
        """Puts work at the end, to be done when the arrays `results` are there."""
        self._waiting.append((results, work))

    def do_all(self) -> None:
        """Waits for the results and does the work.

        Raises:
            JaxRuntimeError: if results could not be computed.
            Exception: what the work raises. After either nothing is left to do, as all that is
                later was to come of it.
        """
        while self._waiting:
            results, work = self._waiting[0]
            try:
                jax.block_until_ready(results)
                # Not before: a Ctrl-C while waiting leaves the work in its place.
                self._waiting.popleft()
                work()
            except Exception:
                self._waiting.clear()
                raise

    def __exit__(self, *_: object) -> None:
        self.do_all()
