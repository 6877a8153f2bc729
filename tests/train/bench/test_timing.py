import pytest

from train.bench import timing
from train.bench.timing import time_rounds


@pytest.fixture
def clock(monkeypatch):
    """A clock that only work moves on."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("cost", [0.3, 0.125, 0.001])
def test_a_round_is_as_long_as_asked_and_gives_the_time_of_one(clock, cost):
    calls = []

    def run(times):
        calls.append(times)
        clock[0] += times * cost

    rounds = time_rounds(run, repetitions=3, seconds=0.5)
    assert rounds == pytest.approx([cost] * 3)
    assert calls[0] == 1
    assert calls[-3:] == [max(1, round(0.5 / cost))] * 3


def test_compiling_does_not_count(clock):
    calls = []

    def run(times):
        calls.append(times)
        clock[0] += times * 0.125 + (60 if len(calls) == 1 else 0)

    assert time_rounds(run, repetitions=2, seconds=0.5) == pytest.approx([0.125] * 2)


def test_a_slow_first_repetition_does_not_shorten_the_rounds(clock):
    calls = []

    def run(times):
        calls.append(times)
        clock[0] += 0.001 * times + (0.009 if times == 1 else 0)

    time_rounds(run, repetitions=1, seconds=0.5)
    assert calls[-1] == 500
