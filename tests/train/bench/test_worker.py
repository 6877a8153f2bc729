import os
import signal
import time

import pytest

from train.bench.worker import (
    WorkerError,
    in_one_line,
    in_own_process,
    within,
    worker,
)
from train.system.errors import DoesNotFitError, UserError

# These functions run in other processes, which import this file: it has no framework.


def add_one():
    request = yield os.getpid()
    yield request + 1


def sleep_beside_a_child():
    child = os.fork()
    if child:
        yield child
    time.sleep(600)


def be_killed():
    yield "found"
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error):
    yield "found"
    raise error


def test_a_worker_answers_in_a_process_of_its_own():
    with worker(add_one) as ask:
        assert ask() != os.getpid()
        assert ask(1) == 2
        assert list(within(60, ask)) == []


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "message"),
    [
        (fail, [UserError("a sentence.")], UserError, r"^a sentence\.$"),
        (fail, [DoesNotFitError("no room")], DoesNotFitError, "^no room$"),
        (fail, [ValueError("no\nway")], WorkerError, r"^ValueError: no\nTraceback"),
        (be_killed, [], DoesNotFitError, "ended with code -9"),
    ],
)
def test_what_was_found_before_a_failure_is_kept(function, arguments, kind, message):
    with worker(function, *arguments) as ask:
        found = within(60, ask)
        assert next(found) == "found"
        with pytest.raises(kind, match=message) as raised:
            next(found)
    assert type(raised.value) is kind
    notes = getattr(raised.value, "__notes__", [])
    assert ["in fail" in note for note in notes] == [True] * (kind is WorkerError)


def test_what_a_worker_started_ends_with_it_when_the_time_is_up():
    with worker(sleep_beside_a_child) as ask:
        child = ask()
        with pytest.raises(WorkerError, match="^not done within 0 s$"):
            list(within(0.1, ask))
    for _ in range(100):
        with open(f"/proc/{child}/stat") as stat:
            state = stat.read().rsplit(")", 1)[1].split()[0]
        if state == "Z":  # killed, and not yet asked for by whoever inherited it
            return
        time.sleep(0.05)
    pytest.fail("the child still runs")


def test_a_function_is_called_with_the_user_s_routings(tmp_path, monkeypatch):
    from train.learn import user_routing

    monkeypatch.setattr(user_routing, "_trusted", {})
    path = tmp_path / "own.py"
    path.write_text("def route(votes, activation): ...\n")
    name = f"{path}:route"
    user_routing.trust(name)
    assert in_own_process(user_routing.trusted) == (name,)


def cache_folder():
    import jax

    return jax.config.jax_compilation_cache_dir


def test_what_is_measured_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert in_own_process(cache_folder) is None


def test_an_error_in_one_line():
    assert in_one_line(KeyError()) == "KeyError: KeyError"
    assert in_one_line(ValueError("\nno\nway")) == "ValueError: no"
    assert in_one_line(UserError("a sentence.")) == "a sentence."
