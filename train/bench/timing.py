"""How long something takes that can be repeated."""

import time
from collections.abc import Callable


def time_rounds(run: Callable[[int], None], *, repetitions: int, seconds: float) -> list[float]:
    """Seconds that one repetition takes, in each of several rounds.

    Args:
        run: repeats the work a number of times and waits for the last. It is called once before
            anything counts, so that nothing is left to compile.
        repetitions: number of rounds.
        seconds: about how long a round is.

    Returns:
        A value for each round.
    """
    run(1)
    times = max(1, round(seconds / max(_seconds(run, 1), 1e-9)))
    # A first repetition alone is slower than many in a row: where that matters, count again.
    if times > 10:
        times = max(1, round(seconds / (_seconds(run, times // 5) / (times // 5))))
    return [_seconds(run, times) / times for _ in range(repetitions)]


def _seconds(run: Callable[[int], None], times: int) -> float:
    begun = time.perf_counter()
    run(times)
    return time.perf_counter() - begun
