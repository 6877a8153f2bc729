import threading

import pytest

from train.loop import idleness as module
from train.loop.idleness import Idleness


class Results:
    """Results that arrive when the test says so."""

    def __init__(self) -> None:
        self._there = threading.Event()

    def arrive(self) -> None:
        self._there.set()

    def block_until_ready(self) -> "Results":
        assert self._there.wait(10)
        return self


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def send(idleness: Idleness, results: Results) -> None:
    """Sends a dispatch, which takes no time."""
    idleness.sending()
    idleness.sent(results)


def arrived(idleness: Idleness, results: Results) -> None:
    """Lets results arrive, and waits until that is noted."""
    results.arrive()
    idleness._last.result(10)


def test_devices_that_have_more_to_do_are_not_idle(clock):
    first, second = Results(), Results()
    with Idleness() as idleness:
        clock.now += 50  # nothing is sent yet
        send(idleness, first)
        clock.now += 50  # compilation
        send(idleness, second)
        first.arrive()
        idleness._first.result(10)
        clock.now += 5
        arrived(idleness, second)
        with idleness.paused():
            clock.now += 1000
        assert (idleness.idle, idleness.measured, idleness.percent) == (0, 5, 0)


def test_devices_are_idle_from_the_last_results_to_the_next_dispatch_or_pause(clock):
    dispatches = [Results() for _ in range(4)]
    with Idleness() as idleness:
        for results, waited in zip(dispatches[:3], (2, 3, 1), strict=True):
            send(idleness, results)
            clock.now += 6
            arrived(idleness, results)
            clock.now += waited
        with idleness.paused():
            clock.now += 1000
        assert (idleness.idle, idleness.measured) == (6, 18)  # measured from the first results
        clock.now += 4
        send(idleness, dispatches[3])
        clock.now += 8
        arrived(idleness, dispatches[3])
        with idleness.paused():
            clock.now += 1000
        assert (idleness.idle, idleness.measured) == (10, 30)
        assert idleness.percent == pytest.approx(100 / 3)


def test_one_dispatch_alone_says_nothing(clock):
    results = Results()
    with Idleness() as idleness:
        send(idleness, results)
        clock.now += 5
        arrived(idleness, results)
        clock.now += 5
        with idleness.paused():
            clock.now += 1000
        assert idleness.percent is None


def test_devices_are_at_work_while_a_dispatch_blocks_until_it_is_done(clock):
    dispatches = [Results() for _ in range(3)]
    with Idleness() as idleness:
        for results in dispatches:
            clock.now += 1  # the host has something else to do
            idleness.sending()
            clock.now += 20
            idleness.sent(results)
            arrived(idleness, results)
        with idleness.paused():
            clock.now += 1000
        assert (idleness.idle, idleness.measured) == (2, 42)
