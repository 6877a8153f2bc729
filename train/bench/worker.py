"""A process of its own: its memory is its own, what fails in it leaves the others alone, and the
devices are free again afterwards. It imports no framework, so that its function may choose one.
"""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from train.system.errors import DoesNotFitError, UserError, first_line

T = TypeVar("T")
Ask = Callable[..., Any]


class WorkerError(Exception):
    """A worker's function failed or was not done in time; the message says why in one line."""


class _EndedError(Exception):
    """A worker's function has yielded all that it does."""


@contextlib.contextmanager
def worker(function: Callable[..., Generator[Any, Any, None]], *arguments: Any) -> Iterator[Ask]:
    """Runs a generator function of a module in a new process; kills that and what it has started.

    It, its arguments and what it yields can be pickled.

    Yields:
        `ask(request=None, seconds=None)`, which returns what the function yields next. `request` is
        what its `yield` returns, None the first time, `seconds` how long it may take. It raises a
        `UserError` as the function raised it, `DoesNotFitError` where the process was killed, as it
        is where memory runs out, `TimeoutError`, and otherwise `WorkerError`, with the function's
        traceback as a note.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # The first process leads a group, and what it starts is killed with it.
    leads = multiprocessing.parent_process() is None
    process = context.Process(target=_serve, args=(theirs, leads, function, arguments))
    process.start()
    theirs.close()

    def ask(request: Any = None, seconds: float | None = None) -> Any:
        try:
            ours.send(request)
            if seconds is not None and not ours.poll(max(0.0, seconds)):
                raise TimeoutError
            error, *answer = ours.recv()
        except (EOFError, ConnectionError) as lost:
            process.join()
            raise DoesNotFitError(
                f"its process ended with code {process.exitcode}, which a lack of memory may do."
            ) from lost
        if error is None:
            return answer[0]
        message, *notes = answer
        raised = error(message)
        for note in notes:
            raised.add_note(note)
        raise raised

    try:
        yield ask
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it leads no group
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        ours.close()


def within(seconds: float, ask: Ask) -> Iterator[Any]:
    """Yields all that a worker's function yields in so many seconds.

    Raises:
        UserError: as `ask`.
        WorkerError: as `ask`, or if it was not done in time.
    """
    until = time.monotonic() + seconds
    try:
        while True:
            yield ask(seconds=until - time.monotonic())
    except _EndedError:
        return
    except TimeoutError as late:
        raise WorkerError(f"not done within {seconds:.0f} s") from late


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function of a module in a new process and waits for the result; errors as of `ask`.

    It, its arguments and its result can be pickled. JAX compiles all of its programs there, also
    where `JAX_COMPILATION_CACHE_DIR` names a folder of compiled ones.
    """
    from train.learn.user_routing import trusted

    with worker(_call, trusted(), function, arguments) as ask:
        return ask()


def in_one_line(error: BaseException) -> str:
    """An error as a cell of a table, after its kind unless it is a sentence for the user."""
    text = first_line(error)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _call(
    routings: Iterable[str], function: Callable[..., T], arguments: tuple
) -> Generator[T, None, None]:
    import jax

    from train.learn.user_routing import trust

    # By the variable it would be too late: JAX was imported with the function.
    jax.config.update("jax_compilation_cache_dir", None)
    for name in routings:
        trust(name)
    yield function(*arguments)


def _serve(
    connection: Connection,
    leads: bool,
    function: Callable[..., Generator[Any, Any, None]],
    arguments: tuple,
) -> None:
    if leads:
        os.setsid()
    running = function(*arguments)
    answer: tuple
    with contextlib.suppress(EOFError, ConnectionError):  # the other end has closed
        while True:
            request = connection.recv()
            try:
                answer = None, running.send(request)
            except StopIteration:
                answer = _EndedError, ""
            except UserError as error:
                answer = type(error), str(error)
            except Exception as error:  # carried over to where it is raised again
                answer = WorkerError, in_one_line(error), traceback.format_exc()
            connection.send(answer)
