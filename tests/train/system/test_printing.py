"""Text on a terminal: hostile names, and output that goes nowhere."""

import errno
import io
import os

import pytest

from train.system.errors import UserError
from train.system.printing import Printed, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x9b1A\b\r\x07", r"\x1b[2J\x9b1A\x08\r\x07"),
        ("one\ntwo\u2028", r"one\ntwo\u2028"),
        ("gnp.\u202eexe\u2066", r"gnp.\u202eexe\u2066"),
        ("caf\udce9", r"caf\udce9"),
        ("na\tme, 猫, नी\u200cली", "na\tme, 猫, नी\u200cली"),
    ],
)
def test_what_commands_a_terminal_is_shown_and_letters_stay(text, shown):
    assert escaped(text) == shown


def test_lines_stay_lines():
    below = io.StringIO()
    print("one", "\x1b[2J\ntwo", file=Printed(below, "stdout"))
    assert below.getvalue() == "one \\x1b[2J\ntwo\n"


def test_what_cannot_be_written_is_told():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stream = Printed(Full(), "stdout")
    stream.write("kept for later")
    with pytest.raises(UserError, match=r"stdout cannot be written \(No space left on device"):
        stream.flush()
