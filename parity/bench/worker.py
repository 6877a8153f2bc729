"""A process that runs one contender on request."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from parity.bench.contenders import CONTENDERS, Work
from train.system.machine import process_peak_bytes


@dataclass(frozen=True)
class Ready:
    """What is known of a contender after its first training step and its first forward pass.

    Attributes:
        device: what it runs on.
        first_step_seconds: seconds that the first training step took, compilation included.
        loss: of the first training step.
    """

    device: str
    first_step_seconds: float
    loss: float


class Worker:
    """A contender in a process of its own, on a given number of cores.

    Args:
        name: of the contender.
        work: what it does.
        cores: how many cores it may use.
    """

    def __init__(self, name: str, work: Work, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(name, work, cores, theirs), daemon=True, name=f"bench-{name}"
        )
        self._process.start()
        theirs.close()

    def ready(self) -> Ready:
        """Waits until the contender has done everything once.

        Raises:
            RuntimeError: if it cannot run here; the message says why.
        """
        return self._receive()

    def time(self, what: str, times: int) -> float:
        """Runs `"train"` or `"forward"` so many times in a row; returns the seconds.

        It is run once more before that, which does not count: whoever begins after the turns of
        others is slow at first.
        """
        self._connection.send((what, times))
        return self._receive()

    def peak_bytes(self) -> int:
        """The most memory that was in use: of the accelerator, or of the process on a CPU."""
        self._connection.send(("peak", 0))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except EOFError as error:
            raise RuntimeError("its process ended, which a lack of memory may do") from error
        if kind == "failed":
            raise RuntimeError(value)
        return value


def _serve(name: str, work: Work, cores: int, connection: Connection) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    os.environ["OMP_NUM_THREADS"] = str(cores)
    # The contenders share the device, on which JAX would take most of the memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        contender = CONTENDERS[name](work)
        begun = time.perf_counter()
        loss = contender.train(1)
        seconds = time.perf_counter() - begun
        contender.forward(1)
        connection.send(("done", Ready(contender.device, seconds, loss)))
        while True:
            what, times = connection.recv()
            if what == "peak":
                connection.send(("done", contender.peak_bytes() or process_peak_bytes()))
                continue
            run = getattr(contender, what)
            run(1)
            begun = time.perf_counter()
            run(times)
            connection.send(("done", time.perf_counter() - begun))
    except EOFError:  # the other end has closed
        return
    # Whatever a framework raises where it cannot run: the other contenders go on.
    except Exception as error:
        first = (str(error) or type(error).__name__).strip().splitlines()[0]
        connection.send(("failed", f"{type(error).__name__}: {first}"))
