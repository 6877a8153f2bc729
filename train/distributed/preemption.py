"""Being asked to stop: the first time after the steps under way, the second time at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What a scheduler sends before it takes a machine away, and what Ctrl-C sends."""


class StopSignals:
    """Notes that the process was asked to stop, as long as it is used as a context.

    `received` is the first signal, or None. A second one ends the process on the spot, with 128
    plus its number as the exit code: what was written completely is there, and nothing else is
    waited for.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = signal.Signals(number)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after the steps under way; a second signal stops at once\n")

    def __enter__(self) -> "StopSignals":
        """Listens, in the main thread; elsewhere Python has no signals, and nothing changes."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
