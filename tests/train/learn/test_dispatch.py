from hypothesis import given
from hypothesis import strategies as st

from train.learn.dispatch import BYTES, MOST, SECONDS, in_time, room, until_due

counts = st.integers(1, 10**9)
intervals = st.lists(st.integers(1, 500), min_size=1, max_size=3)


@given(total=st.integers(1, 2000), intervals=intervals, limits=st.lists(st.integers(1, 70)))
def test_a_run_stops_at_everything_that_is_due_and_at_its_end(total, intervals, limits):
    due = {step for every in intervals for step in range(every, total + 1, every)} | {total}
    step, stops = 0, set()
    while step < total:
        most = limits[len(stops) % len(limits)] if limits else MOST
        count = until_due(step, total, intervals, most)
        assert 1 <= count <= most
        step += count
        stops.add(step)
    assert step == total
    assert due <= stops


def test_a_run_stops_nowhere_else_where_it_may_go_on():
    assert until_due(0, 100, [10, 23], 64) == 10
    assert until_due(20, 100, [10, 23], 64) == 3
    assert until_due(23, 100, [10, 23], 64) == 7
    assert until_due(96, 98, [10, 23], 64) == 2
    assert until_due(0, 100, [10, 23], 4) == 4


@given(seconds=st.floats(1e-9, 1e6), most=st.integers(1, MOST))
def test_a_dispatch_takes_no_longer_than_it_may_unless_one_step_does(seconds, most):
    steps = in_time(seconds, most)
    assert 1 <= steps <= most
    assert steps == 1 or steps * seconds <= SECONDS
    assert steps == most or (steps + 1) * seconds > SECONDS


def test_one_step_is_taken_to_see_how_long_it_takes():
    assert in_time(None, 10) == 1


@given(size=counts)
def test_there_is_room_for_a_step_and_not_for_too_much(size):
    steps = room(size)
    assert 1 <= steps <= MOST
    assert steps == 1 or steps * size <= BYTES
    assert steps == MOST or (steps + 1) * size > BYTES
