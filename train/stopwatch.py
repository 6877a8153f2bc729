"""How fast a run is."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Measures images a second in training, without compilation and evaluation.

    Args:
        batch_size: images in a step.
        seconds_before: wall time that the run took before it was resumed.
    """

    def __init__(self, batch_size: int, seconds_before: float = 0.0) -> None:
        self._batch_size = batch_size
        self._begun = time.monotonic() - seconds_before
        self._lap_begun: float | None = None  # None: the first step is still to come
        self._lap_steps = 0
        self._seconds = 0.0
        self._steps = 0
        self.recent_rate = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, whatever it did."""
        return time.monotonic() - self._begun

    @property
    def rate(self) -> float:
        """Images a second over the whole run; 0 before the second lap."""
        return self._steps * self._batch_size / self._seconds if self._seconds else 0.0

    def step(self) -> bool:
        """Counts a step; True for the first, whose result is to be waited for before `start`."""
        self._lap_steps += 1
        return self._lap_begun is None

    def start(self) -> None:
        """Begins to measure, from now on."""
        self._lap_begun, self._lap_steps = time.monotonic(), 0

    def lap(self) -> None:
        """Takes the rate of the steps since the last lap, whose results have arrived."""
        if self._lap_begun is None or not self._lap_steps:
            return
        now = time.monotonic()
        seconds = now - self._lap_begun
        self._seconds += seconds
        self._steps += self._lap_steps
        self.recent_rate = self._lap_steps * self._batch_size / seconds
        self._lap_begun, self._lap_steps = now, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count as training; to be entered right after a lap."""
        begun = time.monotonic()
        yield
        if self._lap_begun is not None:
            self._lap_begun += time.monotonic() - begun
