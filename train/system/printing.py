"""What is printed: nothing in a name commands a terminal, and output that fails is a sentence."""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from train.system.errors import UserError

# Control characters but the tab, ends of lines, what turns the direction of writing round, and
# halves of letters, which stand for bytes that are not UTF-8.
_COMMANDS = re.compile(
    "[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escaped(text: str) -> str:
    r"""A text from a file or an argument in one line, which a terminal shows and does not obey.

    Example:
        >>> escaped("\x1b[2J, \n")
        '\\x1b[2J, \\n'
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Printed:
    """Stands before a stream and writes each line escaped; all else is the stream's.

    Raises:
        UserError: where the stream takes no more, and says why.
        BrokenPipeError: nobody reads it.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self.stream, self._name = stream, name

    def write(self, text: str) -> int:
        with self._telling():
            self.stream.write("\n".join(map(escaped, text.split("\n"))))
        return len(text)

    def flush(self) -> None:
        with self._telling():
            self.stream.flush()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(
                f"{self._name} cannot be written ({error.strerror}): make room where it goes, or "
                "send it elsewhere."
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Puts a `Printed` before stdout and stderr; a stream that is closed stays so."""
    with contextlib.ExitStack() as stack:
        if sys.stdout is not None:
            stack.enter_context(contextlib.redirect_stdout(Printed(sys.stdout, "stdout")))
        if sys.stderr is not None:
            stack.enter_context(contextlib.redirect_stderr(Printed(sys.stderr, "stderr")))
        yield
        if sys.stdout is not None:
            sys.stdout.flush()


def terminal() -> Any:
    """Stderr for what draws there itself, such as a bar, and escapes what it is given."""
    return getattr(sys.stderr, "stream", sys.stderr)
