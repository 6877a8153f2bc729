import pytest

from tests.tolerance import assert_close
from train.bench import timing
from train.bench.timing import Line, Rounds, fit_line, rates, time_rounds


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

    rounds = time_rounds(run, Rounds(3, 0.5))
    assert_close(rounds, [cost] * 3, reduction_length=3000)
    assert calls[0] == 1
    assert calls[-3:] == [max(1, round(0.5 / cost))] * 3


def test_compiling_does_not_count(clock):
    calls = []

    def run(times):
        calls.append(times)
        clock[0] += times * 0.125 + (60 if len(calls) == 1 else 0)

    assert time_rounds(run, Rounds(2, 0.5)) == [0.125] * 2


def test_a_slow_first_repetition_does_not_shorten_the_rounds(clock):
    calls = []

    def run(times):
        calls.append(times)
        clock[0] += 0.001 * times + (0.009 if times == 1 else 0)

    time_rounds(run, Rounds(1, 0.5))
    assert calls[-1] == 500


def test_rates_are_of_the_median_and_the_outer_rounds():
    found = rates(6, [3.0, 1.0, 2.0])
    assert found == {"images_per_second": 3, "slowest": 2, "fastest": 6}


def test_a_line_is_found_again_and_counts_relative_distances():
    line = fit_line([2, 4, 8], [3.0, 4.0, 6.0])
    assert_close([line.fixed, line.each, line.off_by], [2, 0.5, 0])
    # Weights 1/y: the minimum of (1 - a)**2 + (1 - a/4)**2 + (1 - a)**2 for a flat line is 12/11.
    flat = fit_line([1, 2, 3], [1.0, 4.0, 1.0])
    assert_close([flat.fixed, flat.each, flat.off_by], [12 / 11, 0, 1 - 3 / 11])
    assert isinstance(flat, Line)
