import os
import signal

import pytest

from train.bench.memory import DoesNotFitError
from train.bench.process import in_own_process
from train.system.errors import UserError


def refuse(kind, message):
    raise kind(message)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_function_runs_in_a_process_of_its_own():
    assert in_own_process(os.getpid) != os.getpid()


def test_bad_input_arrives_as_it_was_raised():
    for kind in (UserError, DoesNotFitError):
        with pytest.raises(kind, match="no such thing") as raised:
            in_own_process(refuse, kind, "no such thing")
        assert type(raised.value) is kind


def test_a_defect_arrives_with_its_traceback():
    with pytest.raises(RuntimeError, match="in refuse(.|\n)*KeyError: 'x'"):
        in_own_process(refuse, KeyError, "x")


def test_a_killed_process_is_a_lack_of_memory():
    with pytest.raises(DoesNotFitError, match="ended with code -9"):
        in_own_process(die)
