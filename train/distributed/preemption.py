"""Being asked to stop: the first time after the steps under way, the second time at once."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from train.system.errors import PreemptedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What a scheduler sends before it takes a machine away, and what Ctrl-C sends."""


class StopSignals:
    """Notes that the process was asked to stop, as long as it is used as a context.

    `received` is the first signal, or None. A second one ends the process on the spot, with 128
    plus its number as the exit code: what was written completely is there, and nothing else is
    waited for. So does the first, with the exit code of `PreemptedError`, as long as `lossless`:
    then nothing has been done yet that an end could lose.

    Python itself hears of a signal when the main thread is back from what it called, such as a
    compiler that takes a minute. So a thread listens, too.
    """

    def __init__(self, *, lossless: bool = False) -> None:
        self.received: signal.Signals | None = None
        self.lossless = lossless
        self._untold = threading.Lock()  # which the first that tells of a stop acquires
        self._before: dict[signal.Signals, Any] = {}
        self._descriptors: tuple[int, int] | None = None

    def _heed(self, number: int, count: int) -> None:
        if count > 1:
            os._exit(128 + number)
        if self.lossless:
            _say("stopped before the first step; nothing is lost")
            os._exit(PreemptedError.exit_code)
        if self._untold.acquire(blocking=False):
            _say("stopping after the steps under way; a second signal stops at once")

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._heed(number, 1 if self.received is None else 2)
        self.received = signal.Signals(number)

    def _listen(self, descriptor: int) -> None:
        count = 0
        while heard := os.read(descriptor, 1):
            if heard[0] in SIGNALS:
                count += 1
                self._heed(heard[0], count)
        os.close(descriptor)

    def __enter__(self) -> "StopSignals":
        """Listens, in the main thread; elsewhere Python has no signals, and nothing changes."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            heard, told = os.pipe()
            os.set_blocking(told, False)
            self._descriptors = told, signal.set_wakeup_fd(told)
            threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptors is not None:
            told, before = self._descriptors
            signal.set_wakeup_fd(before)
            os.close(told)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    # Not print: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
