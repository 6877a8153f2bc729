"""Running a function in a process of its own.

So the memory it takes is its own, what fails leaves the others alone, and the devices are free
again afterwards.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from train.bench.memory import DoesNotFitError
from train.learn.own_routing import trust, trusted
from train.system.errors import UserError

T = TypeVar("T")


def in_own_process(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Calls a function of a module in a new process and waits for the result.

    Args:
        function: what to call; it, its arguments and its result can be pickled.
        *arguments: its arguments.
        **keywords: its keyword arguments.

    Raises:
        UserError: as raised by the function; `DoesNotFitError` stays one.
        DoesNotFitError: if the process was killed, as it is where memory runs out.
        RuntimeError: if the function raises anything else, with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_serve, args=(theirs, trusted(), function, arguments, keywords), daemon=True
    )
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    except EOFError as error:
        process.join()
        raise DoesNotFitError(
            f"its process ended with code {process.exitcode}, which a lack of memory may do."
        ) from error
    finally:
        process.kill()
        process.join()
    if kind is not None:
        raise kind(value)
    return value


def _serve(
    connection: Connection,
    routings: Iterable[str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    try:
        for name in routings:
            trust(name)
        connection.send((None, function(*arguments, **keywords)))
    except UserError as error:
        connection.send((type(error), str(error)))
    except Exception:  # carried over to where it is raised again
        connection.send((RuntimeError, traceback.format_exc()))
