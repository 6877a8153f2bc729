"""Several processes of one `fit` on this machine."""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from train.distributed.preemption import SIGNALS
from train.system.errors import UserError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"
LIFELINE = "CAPSJAX_LAUNCHER"
"""The descriptor of a pipe that ends with the launcher, however that ends."""

GRACE_SECONDS = 10.0
"""How long the others have to end by themselves after one of them failed."""

STOPPED_SECONDS = 5.0
"""How long a process is stopped before that is told."""

_POLL_SECONDS = 0.1


def follow_launcher() -> bool:
    """Ends this process soon after its launcher has ended; returns whether it has one.

    It is asked to stop first, as by a scheduler.
    """
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return False

    def follow() -> None:
        os.read(int(descriptor), 1)  # nobody writes
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(6 * GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
    return True


def launch(processes: int, command: Sequence[str], devices_per_process: int | None = None) -> int:
    """Runs `python -m train COMMAND`, a `fit`, in several processes, which share one run.

    Each has so many GPUs, or virtual devices on a CPU; if not given, it sees what this one does. A
    signal that stops a run goes on to all of them. When one fails, the others are ended; one that
    was killed or stopped is named on stderr. Returns the exit code of the first that failed, or 0.

    Raises:
        UserError: if there are fewer GPUs.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]  # a free one
    common = {**os.environ, COORDINATOR: f"localhost:{port}", PROCESSES: str(processes)}
    environments = [
        {**common, **_devices(index, devices_per_process), INDEX: str(index)}
        for index in range(processes)
    ]
    # In sessions of their own: a Ctrl-C on the terminal comes through here, and once.
    words = [sys.executable, "-m", "train", *command, "--distributed"]
    lifeline, end = os.pipe()
    children = [
        subprocess.Popen(
            words,
            env={**environment, LIFELINE: str(lifeline)},
            start_new_session=True,
            pass_fds=[lifeline],
        )
        for environment in environments
    ]
    os.close(lifeline)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        os.close(end)
        for number, handler in before.items():
            signal.signal(number, handler)


def _devices(index: int, count: int | None) -> dict[str, str]:
    if count is None:
        return {}
    first = index * count
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        gpus = [str(number) for number in range(first, first + count)]
    else:
        gpus = named.split(",")[first : first + count]
        if named and len(gpus) < count:
            raise UserError(
                f"CUDA_VISIBLE_DEVICES is {named}, too few GPUs for {count} in process {index}: "
                "choose fewer --processes or --devices-per-process."
            )
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "JAX_NUM_CPU_DEVICES": str(count)}


def _wait(children: Sequence[subprocess.Popen]) -> int:
    """Waits for all; from the first failure on, no longer than the others are given."""
    code, deadline, told_at = 0, math.inf, time.monotonic() + STOPPED_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        code = code or _failure(children)
        if code and deadline == math.inf:
            deadline = time.monotonic() + GRACE_SECONDS
            _tell_of_lost(children)
        stopped = [number for number, child in enumerate(children) if _is_stopped(child)]
        if not stopped:
            told_at = time.monotonic() + STOPPED_SECONDS
        elif time.monotonic() >= told_at:
            told_at = math.inf
            print(
                f"note: process {stopped[0]} of {len(children)} is stopped, and the others wait "
                f"for it: kill -CONT {children[stopped[0]].pid} lets it go on",
                file=sys.stderr,
            )
        time.sleep(_POLL_SECONDS)
    if not code and (code := _failure(children)):
        _tell_of_lost(children)
    return code


def _tell_of_lost(children: Sequence[subprocess.Popen]) -> None:
    """Names a process that was killed, or is stopped, if one is; others have told why they end."""
    for number, child in enumerate(children):
        code = child.poll()
        # Those that are left abort, when they know.
        if code is not None and code < 0 and code != -signal.SIGABRT:
            what = f"was ended by {signal.Signals(-code).name}"
        elif _is_stopped(child):
            what = "is stopped"
        else:
            continue
        print(
            f"error: process {number} of {len(children)} {what}, and the run with it: what was "
            "written completely is safe, and the same command with --resume goes on from there.",
            file=sys.stderr,
        )
        return


def _is_stopped(child: subprocess.Popen) -> bool:
    """Whether a process is stopped, as by SIGSTOP, where the system tells."""
    if child.poll() is not None or not hasattr(os, "waitid"):
        return False
    return os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def _failure(children: Sequence[subprocess.Popen]) -> int:
    """The exit code of a child that has failed: of one that was killed, if any was; else 0."""
    codes = [child.returncode for child in children if child.returncode]
    lowest = min(codes, default=0)
    return 128 - lowest if lowest < 0 else next(iter(codes), 0)
