"""The processes of a run, one or several to a host: which there are, and what they exchange.

All processes run the same program, and whatever makes all devices work together has to be called by
all of them in the same order. What only one process knows (its clock, its signals, an error) has to
reach the others before it decides anything.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from train.distributed.launcher import COORDINATOR, INDEX, PROCESSES, follow_launcher
from train.distributed.native import filter_native, tell_of_loss
from train.system.errors import CommandError, EchoedError, UserError, first_line

TELL_SECONDS, WAIT_SECONDS = 20, 300
"""Until it is told that others are waited for at the start, and until that is given up."""

_MESSAGE_BYTES = 1024
_Number = TypeVar("_Number", int, float)
# Names, in error messages, of the libraries that carry data between processes.
_COMMUNICATION = re.compile(r"\b(gloo|nccl|mpi|coordination|barrier)", re.IGNORECASE)


def join(coordinator: str | None, processes: int | None, index: int | None) -> None:
    """Joins the other processes; to be called before anything is computed.

    What is None is taken from the environment (`JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`,
    `JAX_PROCESS_ID`), and then from the cluster that `jax.distributed` recognises: Slurm, Open MPI,
    Kubernetes or Cloud TPU. At the coordinator, `host:port`, process 0 listens; the index is the
    number of this process, from 0.

    Raises:
        UserError: if it is not known who the others are, or they cannot be reached.
    """
    coordinator = coordinator or os.environ.get(COORDINATOR)
    processes = _number(processes, "--processes", PROCESSES)
    index = _number(index, "--process-index", INDEX)
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"the coordinator {coordinator!r} is not of the form HOST:PORT.")
    if processes is not None and processes < 1:
        raise UserError(f"--processes is {processes}, but must be at least 1.")
    if index is not None and not 0 <= index < (processes or math.inf):
        last = "" if processes is None else f" to {processes - 1}, the last of {processes}"
        raise UserError(f"--process-index is {index}, but must be 0{last or ' or more'}.")
    # Signals are for train.distributed.preemption to receive.
    jax.config.update("jax_enable_preemption_service", False)
    filter_native(telling=not follow_launcher())
    try:
        with _told_of_waiting(coordinator):
            # What native code does at its end is a page of stack.
            jax.distributed.initialize(
                coordinator, processes, index, initialization_timeout=2 * WAIT_SECONDS
            )
    except ValueError as error:
        raise UserError(
            "--distributed does not know the other processes: give --coordinator HOST:PORT, "
            f"--processes and --process-index (or {COORDINATOR}, {PROCESSES} and {INDEX}); only "
            "on Slurm, Open MPI, Kubernetes and Cloud TPU can they be found."
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"the other processes cannot be reached at {coordinator or 'the coordinator'} "
            f"({first_line(error)[:160]}): see that all were started, with the same "
            "--coordinator and --processes."
        ) from error
    if len({len(jax.local_devices(i)) for i in range(jax.process_count())}) > 1:
        raise UserError("every process has to have the same number of devices.")


@contextlib.contextmanager
def _told_of_waiting(coordinator: str | None) -> Iterator[None]:
    """Tells that the others are waited for, and ends this process when that was long enough."""
    where = coordinator or "the coordinator"

    def tell() -> None:
        print(f"note: waiting for the other processes, at {where}", file=sys.stderr)

    def give_up() -> None:
        print(
            f"error: the other processes did not come to {where} within {WAIT_SECONDS} seconds: "
            "see that all were started, with the same --coordinator and --processes.",
            file=sys.stderr,
        )
        os._exit(UserError.exit_code)

    timers = [threading.Timer(TELL_SECONDS, tell), threading.Timer(WAIT_SECONDS, give_up)]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _number(given: int | None, option: str, variable: str) -> int | None:
    if given is not None or variable not in os.environ:
        return given
    try:
        return int(os.environ[variable])
    except ValueError as error:
        raise UserError(
            f"{variable} is {os.environ[variable]!r}, which is not a number: correct it or give "
            f"{option}."
        ) from error


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def own_part(batch_size: int, mesh: Mesh) -> slice:
    """The examples of a global batch that are computed on devices of this process."""
    own = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    first, count = own.index(True), mesh.devices.size
    return slice(first * batch_size // count, (first + sum(own)) * batch_size // count)


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Lets its body succeed in all processes or fail in all; each has to enter.

    Raises:
        UserError: what the body raised, in the process where it did.
        EchoedError: in the others.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    if are_several():
        message = ("" if own is None else str(own)).encode()[:_MESSAGE_BYTES]
        padded = np.frombuffer(message.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
        for row in multihost_utils.process_allgather(padded):
            if text := row.tobytes().rstrip(b"\0").decode(errors="replace"):
                own = own or EchoedError(text)
                own.in_every_process = True
    if own is not None:
        raise own


@contextlib.contextmanager
def ending_all() -> Iterator[None]:
    """Ends this process at once on an error that the others do not share, and with it the run.

    A process that leaves politely waits for the others, and those for it in the middle of a step.
    """
    try:
        yield
    except BaseException as error:
        if not are_several() or getattr(error, "in_every_process", False):
            raise
        if isinstance(error, CommandError):
            print(f"error: {error}", file=sys.stderr)
        elif says_loss(error):
            tell_of_loss()
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(getattr(error, "exit_code", 1))


def says_loss(error: BaseException) -> bool:
    """Whether an error says that another process is lost."""
    return are_several() and _COMMUNICATION.search(str(error)) is not None


def any_process(answer: bool) -> bool:
    """Whether the answer of any process is yes, in all of them."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(answer))))


def require_same(values: Mapping[str, Any]) -> None:
    """Compares what all processes need to have alike, under the same names in each.

    Raises:
        UserError: in the first process, if another one has something else.
    """
    if not are_several():
        return
    own = [list(hashlib.sha256(repr(value).encode()).digest()) for value in values.values()]
    of_all = multihost_utils.process_allgather(np.array(own, np.uint8))
    same = np.all(of_all == of_all[0], axis=(0, 2))
    if is_first() and not np.all(same):
        other = [name for name, is_same in zip(values, same, strict=True) if not is_same]
        raise UserError(
            f"the processes of a run need the same, but differ in: {', '.join(other)}: give each "
            "the same command and the same data."
        )


def as_in_first(numbers: Sequence[_Number]) -> list[_Number]:
    """The numbers that the first process has, in all; a shared folder may be seen late by some."""
    if not are_several():
        return list(numbers)
    own = np.frombuffer(json.dumps(list(numbers)).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(own))))
    # Of the other processes only the shape counts.
    of_first = multihost_utils.broadcast_one_to_all(np.resize(own, size))
    found: list[_Number] = json.loads(np.asarray(of_first).tobytes())
    return found


def as_global(tree: Any) -> Any:
    """Makes arrays of which each process has the same copies one array of all processes.

    Of these Orbax writes each once, all processes taking part.
    """
    if not are_several():
        return tree
    own = jax.device_put(tree, jax.local_devices()[0])
    return multihost_utils.host_local_array_to_global_array(own, _device_of_each(), PartitionSpec())


def to_local(tree: Any, like: Any) -> Any:
    """The copies of this process, of arrays of all, placed on devices as in `like`."""
    if not are_several():
        return tree
    local = multihost_utils.global_array_to_host_local_array(
        tree, _device_of_each(), PartitionSpec()
    )
    return jax.device_put(local, jax.tree.map(lambda array: array.sharding, like))


def _device_of_each() -> Mesh:
    """The first device of each process."""
    firsts = [jax.local_devices(process)[0] for process in range(jax.process_count())]
    return Mesh(np.asarray(firsts), ("process",))
