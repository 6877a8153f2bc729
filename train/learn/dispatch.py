"""How many steps the devices are told to take at once: it changes the speed of a run, no number."""

from collections.abc import Sequence

MOST = 64
"""Steps in a dispatch: by then, what it costs to send one is nothing to a step."""

BYTES = 2**24
"""Bytes of batches in a dispatch, which are sent whether they are filled or not."""

SECONDS = 1.0
"""About how long a dispatch may take: nothing is shown, and no signal heeded, before it ends."""


def room(batch_bytes: int) -> int:
    """Steps that a dispatch has room for.

    The room is a part of the compiled program, and two programs may round differently: it depends
    on nothing that may change when a run is resumed.

    Args:
        batch_bytes: size of what the feed sends for a step.
    """
    return max(1, min(MOST, BYTES // batch_bytes))


def in_time(seconds_per_step: float | None, most: int) -> int:
    """Steps that take no longer than a dispatch may; one, to see, where nothing is known yet.

    Args:
        seconds_per_step: as measured, or None.
        most: the limit there is anyway.
    """
    if seconds_per_step is None:
        return 1
    return most if seconds_per_step * most <= SECONDS else max(1, int(SECONDS / seconds_per_step))


def until_due(step: int, total: int, intervals: Sequence[int], most: int) -> int:
    """Steps from `step` to the next at which something is due, or as many of them as are allowed.

    Args:
        step: steps taken, less than `total`.
        total: the step that ends the run.
        intervals: something is due at every multiple of each.
        most: the limit.
    """
    return min(most, total - step, *(every - step % every for every in intervals))
