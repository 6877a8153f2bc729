import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.train.conftest import ROOT, run_python
from train.distributed.preemption import SIGNALS, StopSignals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_nothing_else_happens(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_process_on_the_spot(number):
    program = (
        "import os\n"
        "from train.distributed.preemption import StopSignals\n"
        "with StopSignals():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {number:d}); print('goes on', flush=True)\n"
        f"        os.kill(os.getpid(), {number:d}); print('goes on', flush=True)\n"
        "    finally:\n"
        "        print('cleans up', flush=True)\n"
    )
    ended = run_python(program)
    assert ended.returncode == 128 + number
    assert ended.stdout == "goes on\n"
    assert "a second signal stops at once" in ended.stderr


@pytest.mark.parametrize(
    ("lossless", "code", "said"),
    [
        (False, 128 + signal.SIGINT, "stopping after the steps under way; a second signal stops"),
        (True, 75, "stopped before the first step; nothing is lost"),
    ],
)
def test_signals_are_heeded_while_python_is_not(lossless, code, said):
    """A checksum that takes minutes stands for a compiler: no handler of Python is called."""
    program = (
        "import hashlib\n"
        "from train.distributed.preemption import StopSignals\n"
        f"with StopSignals(lossless={lossless}):\n"
        "    print('in', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert said in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == code


def test_other_threads_go_without():
    received = []

    def listen():
        with StopSignals() as signals:
            received.append(signals.received)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert received == [None]
