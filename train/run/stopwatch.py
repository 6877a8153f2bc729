"""How fast a run is."""

import contextlib
import time
from collections.abc import Iterable, Iterator


class Stopwatch:
    """Measures images a second in training, without compilation and evaluation.

    Of a run that is resumed, `seconds_before` is the wall time until then, and `laps_before` has of
    each lap that it took the steps and the images a second.
    """

    recent_rate = 0.0
    """Images a second in the last lap; 0 before the first."""

    def __init__(
        self,
        batch_size: int,
        seconds_before: float = 0.0,
        laps_before: Iterable[tuple[int, float]] = (),
    ) -> None:
        self._batch_size = batch_size
        self._begun = time.monotonic() - seconds_before
        self._arrived: float | None = None  # None: the first results are still to come
        self._lap_begun, self._lap_steps = 0.0, 0
        self._seconds, self._steps = 0.0, 0
        for steps, rate in laps_before:
            self._seconds += steps * batch_size / rate
            self._steps += steps

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, whatever it did."""
        return time.monotonic() - self._begun

    @property
    def rate(self) -> float:
        """Images a second over the whole run; 0 before the first lap."""
        return self._steps * self._batch_size / self._seconds if self._seconds else 0.0

    def arrived(self, steps: int) -> None:
        """Counts steps whose results are there; the first, which were compiled for, begin."""
        now = time.monotonic()
        if self._arrived is None:
            self._lap_begun = now
        else:
            self._lap_steps += steps
        self._arrived = now

    def lap(self) -> None:
        """Takes the rate of the steps that arrived since the last lap."""
        if self._arrived is None or not self._lap_steps:
            return
        seconds = self._arrived - self._lap_begun
        self._seconds += seconds
        self._steps += self._lap_steps
        self.recent_rate = self._lap_steps * self._batch_size / seconds
        self._lap_begun, self._lap_steps = self._arrived, 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens inside; to be entered right after a lap."""
        begun = time.monotonic()
        yield
        if self._arrived is not None:
            paused = time.monotonic() - begun
            self._lap_begun += paused
            self._arrived += paused
