"""What has to be worked around in Orbax and tensorboardX, each with what is known upstream.

Seen in orbax-checkpoint 0.12.8, tensorstore 0.1.86 and tensorboardX 2.6.5.
"""

import contextlib
import errno
import functools
import gc
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from train.system.errors import first_line


@functools.cache
def quieten_orbax() -> None:
    """Keeps Orbax quiet, from now on.

    It logs each step of each save, and what it cannot read, through `absl` and the root logger,
    and has no setting for that (github.com/google/orbax/issues/1951, open).

    Reads and writes that are still under way when it gives up on a checkpoint, or has seen enough
    of one, complain with tracebacks on the terminal that nobody waits for them any more: some at
    once, some when they are collected, some when they end (no issue upstream). What is wrong is
    raised as an error all the same.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    hook = sys.unraisablehook

    def ignore_abandoned_work(unraisable: Any) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and not inspect.iscoroutine(unraisable.object):
            hook(unraisable)

    sys.unraisablehook = ignore_abandoned_work


@contextlib.contextmanager
def abandoned_work_collected() -> Iterator[None]:
    """Collects at once, unheard, the coroutines of Orbax that an error in the body abandons."""
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        raise


def reason(error: BaseException) -> str:
    """Why Orbax could not read or write, in the words of the system where there are any.

    It passes on a full disk or a damaged file as `OSError`, `ValueError` or a class of its own, in
    which TensorStore names the system's error somewhere after the name of the file, or of two of
    them (no issue upstream).
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := re.search(r"OS error (\d+)|No space left on device", str(error)):
        return os.strerror(int(found[1] or errno.ENOSPC))
    return first_line(error)[:160]


def end_program(code: int) -> NoReturn:
    """Ends this program: after an error on the spot.

    When a save cannot be begun, threads of Orbax would hold it for five minutes more: they wait for
    a signal of that save (no issue upstream; the failure of a save that was begun is raised since
    github.com/google/orbax/issues/605).
    """
    if code == 0:
        sys.exit()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):  # which has been told, where anybody can be told
            stream.flush()
    os._exit(code)


def event_writer() -> Any:
    """The class of tensorboardX's writers, None where it is not installed.

    It imports PyTorch, where that is installed, for tensors that nobody gives it here: seconds that
    the first step would wait for (no issue upstream).
    """
    is_hidden = "torch" not in sys.modules
    if is_hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # so that its import fails
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    finally:
        if is_hidden:
            del sys.modules["torch"]
    return SummaryWriter


def abandon_events(events: Any) -> None:
    """Ends a tensorboardX writer whose disk takes no more.

    It would try again when the program ends, and complain with two tracebacks; it has no call for
    this (github.com/lanpa/tensorboardX/issues/108 is the nearest one: a writer that is never
    closed).
    """
    with contextlib.suppress(AttributeError, OSError):
        writer = events.file_writer.event_writer
        writer._closed = True
        writer._worker.stop()
