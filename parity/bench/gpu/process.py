"""A function that tells what it finds bit by bit, in a process of its own and within a time."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from train.system.errors import UserError

T = TypeVar("T")


class PartError(Exception):
    """A part of the report did not come to its end; the message says why in one line."""


def run_within(
    seconds: float, function: Callable[..., Iterator[T]], *arguments: Any
) -> Iterator[T]:
    """Yields what a generator function of a module yields in a new process.

    The process and all that it has started are killed when it has ended, when the time is up, and
    when the caller leaves; so the devices are free afterwards.

    Args:
        seconds: how long it may take.
        function: what to call; it, its arguments and what it yields can be pickled.
        *arguments: its arguments.

    Raises:
        PartError: if it fails, is killed, or is not done in time.
    """
    until = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(max(0.0, until - time.monotonic())):
                raise PartError(f"not done within {seconds:.0f} s")
            kind, value = ours.recv()
            if kind == "done":
                return
            if kind == "failed":
                raise PartError(value)
            yield value
    except EOFError as error:
        process.join()
        raise PartError(
            f"its process ended with code {process.exitcode}, which a lack of memory may do"
        ) from error
    finally:
        _kill(process)


def _kill(process: BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it leads no group yet
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _serve(
    connection: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]
) -> None:
    os.setsid()  # the leader of a group: what it starts is killed with it
    try:
        for value in function(*arguments):
            connection.send(("found", value))
        connection.send(("done", None))
    except Exception as error:  # the other parts go on
        if not isinstance(error, UserError):
            traceback.print_exc()
        connection.send(("failed", in_one_line(error)))


def in_one_line(error: Exception) -> str:
    """An error as a cell of a table; its kind is told unless it is a sentence for the user."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
