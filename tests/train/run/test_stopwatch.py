import pytest

from train.run import stopwatch
from train.run.stopwatch import Stopwatch


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_the_first_steps_and_pauses_do_not_count(clock):
    watch = Stopwatch(batch_size=10)
    clock.now += 50  # compilation
    watch.arrived(1)
    clock.now += 4
    watch.arrived(2)
    clock.now += 3  # until the lap, nothing arrives
    watch.lap()
    assert watch.recent_rate == 2 * 10 / 4
    with watch.paused():
        clock.now += 1000
    clock.now += 1
    watch.arrived(4)
    watch.lap()
    assert watch.recent_rate == 10
    assert watch.rate == 6 * 10 / 8
    assert watch.wall_seconds == 1058


def test_a_resumed_run_goes_on_with_its_time_and_its_rate(clock):
    watch = Stopwatch(batch_size=10, seconds_before=70, laps_before=[(4, 20.0), (6, 10.0)])
    clock.now += 5
    assert watch.wall_seconds == 75
    assert watch.rate == 100 / (2 + 6)
    watch.arrived(1)
    clock.now += 4
    watch.arrived(10)
    watch.lap()
    assert (watch.rate, watch.recent_rate) == (200 / (2 + 6 + 4), 25)


def test_nothing_measured_is_zero(clock):
    watch = Stopwatch(batch_size=10)
    watch.arrived(1)
    watch.lap()
    assert (watch.rate, watch.recent_rate) == (0.0, 0.0)
