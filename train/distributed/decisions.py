"""What the processes of a run decide together while it trains: when to stop, how far to go at once.

Each process has a clock and receives signals of its own, but all have to take the same steps. What
each would like travels with a dispatch as its `wishes`, and comes back as what all agree on, with
no message of its own and nobody waiting. It is known when the results of that dispatch are, and so
holds for the one after next.
"""

import jax
import numpy as np

from train.distributed import processes
from train.distributed.preemption import StopSignals


class Agreement:
    """The decisions of all processes; those of this one, at once, where it trains alone.

    Args:
        signals: of this process.
    """

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._alone = not processes.are_several()
        self._own_most = 1
        self._stop, self._most = False, 1

    def wishes(self, most: int) -> tuple[int, int]:
        """What goes with the next dispatch.

        Args:
            most: steps that this process would take at once.
        """
        self._own_most = most
        return int(self._signals.received is not None), -most

    def settle(self, agreed: jax.Array | None) -> None:
        """Takes in what has come back with a dispatch whose results are there; None without one."""
        if agreed is not None:
            stop, minus_most = np.asarray(agreed)
            self._stop, self._most = bool(stop), -int(minus_most)

    @property
    def most(self) -> int:
        """Steps to take at once: the fewest that any process would."""
        return self._own_most if self._alone else self._most

    @property
    def stop(self) -> bool:
        """Whether a process was asked to stop."""
        return self._signals.received is not None if self._alone else self._stop
