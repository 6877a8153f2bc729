"""Files that somebody broke, for the tests that read them.

`CAPSJAX_FUZZ_EXAMPLES` says how many each such test tries (by default few; `make soak` tries many).
"""

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from train.system.errors import UserError

T = TypeVar("T")

EXAMPLES = int(os.environ.get("CAPSJAX_FUZZ_EXAMPLES", "60"))

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The settings of a test that reads broken files."""


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with one to four things done to it: bytes changed, cut out, doubled or put in.

    Half of them happen near the beginning, where headers are.
    """
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        end = draw(st.sampled_from([min(len(data), 64), len(data)]))
        at = draw(st.integers(0, end - 1))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["change", "cut", "truncate", "double", "insert"])):
            case "change":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "cut":
                del data[at : at + length]
            case "truncate":
                del data[at:]
            case "double":
                data[at:at] = data[at : at + 16 * length]
            case "insert":
                extremes = [b"\xff" * length, b"\0" * length, b"\x7f" + b"\xff" * length]
                data[at:at] = draw(st.sampled_from(extremes))
    return bytes(data)


def sentence_or(read: Callable[..., T], *arguments: object, **options: object) -> T | None:
    """What is read; None where it is refused, which has to be in one line."""
    try:
        return read(*arguments, **options)
    except UserError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) == 1
    return None
