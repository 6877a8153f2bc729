import os
import signal
import time

import pytest

from parity.bench.gpu.process import PartError, run_within
from train.system.errors import UserError


def count_to(number):
    yield from range(number)


def tell_then_fail(error):
    yield "found"
    raise error


def tell_then_sleep():
    yield "found"
    time.sleep(600)


def kill_itself():
    yield "found"
    os.kill(os.getpid(), signal.SIGKILL)


def start_a_child():
    child = os.fork()
    if not child:
        time.sleep(600)
    yield child


def collect(values, into):
    for value in values:
        into.append(value)


def test_what_is_found_comes_in_order():
    assert list(run_within(60, count_to, 3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "arguments", "seconds", "message"),
    [
        (tell_then_fail, (ValueError("no\nway"),), 60, "^ValueError: no$"),
        (tell_then_fail, (UserError("a sentence."),), 60, "^a sentence\\.$"),
        (tell_then_fail, (KeyError(),), 60, "^KeyError: KeyError$"),
        (tell_then_sleep, (), 6, "^not done within 6 s$"),
        (kill_itself, (), 60, "ended with code -9"),
    ],
)
def test_what_was_found_before_a_failure_is_kept(function, arguments, seconds, message):
    found = []
    with pytest.raises(PartError, match=message):
        collect(run_within(seconds, function, *arguments), found)
    if arguments or function is kill_itself:
        assert found == ["found"]


def test_what_a_part_started_ends_with_it():
    (child,) = run_within(60, start_a_child)
    for _ in range(100):
        with open(f"/proc/{child}/stat") as stat:
            state = stat.read().rsplit(")", 1)[1].split()[0]
        if state == "Z":  # killed, and not yet asked for by whoever inherited it
            return
        time.sleep(0.05)
    pytest.fail("the child still runs")
