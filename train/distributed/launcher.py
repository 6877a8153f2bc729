"""Several processes of one `fit` on this machine."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from train.distributed.preemption import SIGNALS
from train.system.errors import UserError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"

GRACE_SECONDS = 10.0
"""How long the others have to end by themselves after one of them failed."""

_POLL_SECONDS = 0.1


def launch(processes: int, command: Sequence[str], devices_per_process: int | None = None) -> int:
    """Runs `python -m train COMMAND`, a `fit`, in several processes, which share one run.

    Each has so many GPUs, or virtual devices on a CPU; if not given, it sees what this one does. A
    signal that stops a run goes on to all of them. When one fails, the others are ended. Returns
    the exit code of the first that failed, or 0.

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
    children = [
        subprocess.Popen(words, env=environment, start_new_session=True)
        for environment in environments
    ]

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
    code, deadline = 0, math.inf
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        code = code or _failure(children)
        if code and deadline == math.inf:
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(_POLL_SECONDS)
    return code or _failure(children)


def _failure(children: Sequence[subprocess.Popen]) -> int:
    """The exit code of a child that has failed: of one that was killed, if any was; else 0."""
    codes = [child.returncode for child in children if child.returncode]
    lowest = min(codes, default=0)
    return 128 - lowest if lowest < 0 else next(iter(codes), 0)
