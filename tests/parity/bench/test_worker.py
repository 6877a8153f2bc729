import multiprocessing
import os
import threading
import time
from types import SimpleNamespace

import pytest

from parity.bench import worker
from parity.cli.bench import available_cores


@pytest.fixture
def connection(monkeypatch):
    """The other end of a worker, in a thread of this process, whose contender sleeps after idling.

    It counts how often it has trained: as `peak`, the only number that it may tell.
    """
    trained, idle = [], [True]

    def train(times):
        trained.extend([0] * times)
        time.sleep(0.3 * idle[0])
        idle[0] = False
        return 0.5

    def forward(times):
        idle[0] = True

    contender = SimpleNamespace(
        device="a device", train=train, forward=forward, peak_bytes=lambda: len(trained)
    )
    monkeypatch.setitem(worker.CONTENDERS, "sleepy", lambda work: contender)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    ours, theirs = multiprocessing.Pipe()
    serving = threading.Thread(
        target=worker._serve, args=("sleepy", None, available_cores(), theirs), daemon=True
    )
    serving.start()
    yield ours
    ours.close()
    serving.join(timeout=10)


def test_what_is_slow_after_the_turns_of_others_does_not_count(connection):
    kind, ready = connection.recv()
    assert (kind, ready.loss) == ("done", 0.5)
    connection.send(("peak", 0))
    before = connection.recv()[1]
    connection.send(("train", 4))
    kind, seconds = connection.recv()
    assert kind == "done"
    assert seconds < 0.1
    connection.send(("peak", 0))
    assert connection.recv()[1] == before + 5
