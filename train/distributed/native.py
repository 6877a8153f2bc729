"""What native code prints of several processes, past Python: of a page of stack, one sentence.

JAX ends a process on the spot when it loses sight of another one, and no call lets Python say so
(`missed_heartbeat_callback` of jaxlib 0.10 ends in `std::bad_cast`; no issue upstream). So what
native code prints goes through a second program, this file, which outlives the first.
"""

import os
import re
import signal
import subprocess
import sys
from typing import Any

LOST = (
    "another process of this run has ended, is stopped, or cannot be reached: what was written "
    "completely is safe, and all go on from there when they are started again with --resume"
)
_MARK = b"capsjax: another process is lost\n"
_SIGNS = re.compile(_MARK + rb"|coordination_service|distributed service detected fatal errors")
_NOISE = re.compile(rb"\[Gloo\]")

_filters: list[Any] = []


def filter_native(*, telling: bool) -> None:
    """From now on what native code prints is filtered, and Python prints as before.

    `telling` is whether the loss of another process is told here, and not by who started this one.
    """
    streams = {1: sys.stdout, 2: sys.stderr}
    kept = {number: os.dup(number) for number in streams}
    words = [sys.executable, "-I", __file__, *(["--telling"] if telling else [])]
    beyond = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    assert beyond.stdin is not None
    for number, stream in streams.items():
        stream.flush()
        os.dup2(beyond.stdin.fileno(), number)
        # Behind a `Printed`, which is there as long as a command runs.
        stream.stream = open(  # type: ignore[union-attr]  # noqa: SIM115
            kept[number], "w", buffering=1, encoding=stream.encoding, errors="backslashreplace"
        )
    beyond.stdin.close()
    _filters.append(beyond)


def tell_of_loss() -> None:
    """Says, once with what native code says, that another process is lost."""
    if _filters:
        os.write(2, _MARK)
    else:
        print(f"error: {LOST}.", file=sys.stderr)


def _filter(telling: bool) -> None:
    """Passes lines of stdin on to stderr, but those that say that another process is lost."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lost = False
    for line in sys.stdin.buffer:
        lost = lost or _SIGNS.search(line) is not None
        if not lost and not _NOISE.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
    if lost and telling:
        print(f"error: {LOST}.", file=sys.stderr)


if __name__ == "__main__":
    _filter("--telling" in sys.argv[1:])
