import contextlib
import io

import pytest

from train.system import progress as module
from train.system.printing import Printed
from train.system.progress import Progress, each


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, in seconds, that the module is told."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then_with_the_time_that_is_left(clock, capsys):
    with Progress(100, "step", done=10) as progress:
        progress.advance(40, "loss 2")  # how fast it is cannot be told yet
        clock[0] += 5
        progress.advance(10, "loss 1")  # too soon for another line
        progress.note("something that stays")
        clock[0] += 5
        progress.advance(20, "loss 0.5")
        progress.advance(20, "loss 0.1")
    assert capsys.readouterr().err.splitlines() == [
        "step 50/100: loss 2, ? left",
        "something that stays",
        "step 80/100: loss 0.5, 00:06 left",
        "step 100/100: loss 0.1, 00:00 left",
    ]


def test_on_a_terminal_it_is_a_bar():
    with contextlib.redirect_stderr(Terminal()) as terminal, Progress(100, "step") as progress:
        progress.advance(50, "loss 2")
        progress.note("something that stays")
        progress.advance(50, "loss 1")
    shown = terminal.getvalue()
    assert "\r" in shown
    assert "100/100" in shown
    assert "loss 1" in shown
    assert "something that stays\n" in shown


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (40, "30000/60000 step"),
        (60, "loss 0.1234"),
        (75, "loss 0.1234, accuracy 98.12%"),
        (120, "loss 0.1234, accuracy 98.12%, 12345 images/s"),
    ],
)
def test_a_bar_fits_its_terminal_and_shows_whole_figures(columns, shown, monkeypatch):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (columns, 24))
    with contextlib.redirect_stderr(Terminal()) as terminal, Progress(60_000, "step") as progress:
        progress.begin("compiling")
        progress.begin("")
        progress.advance(30_000, "loss 0.1234, accuracy 98.12%, 12345 images/s")
    bars = terminal.getvalue().replace("\n", "\r").split("\r")
    assert max(map(len, bars)) <= columns
    assert any(bar.startswith("compiling: 0/60000 step |") for bar in bars)
    assert (
        [bar for bar in bars if bar.strip()][-1]
        .rstrip()
        .endswith(f" left, {shown}" if columns > 40 else " left")
    )


def test_a_bar_obeys_its_own_program_alone():
    """Names come from files; behind a `Printed` the bar still draws itself."""
    terminal = Terminal()
    with contextlib.redirect_stderr(Printed(terminal, "stderr")):
        list(each(["\x1b[2J"], 1, str))
        with Progress(1) as progress:
            progress.note("\x1b[31m")
    shown = terminal.getvalue()
    assert "\x1b" not in shown
    assert r"[1/1] \x1b[2J: 1/1 it" in shown
    assert "\\x1b[31m\n" in shown
    assert "\r" in shown


def test_each_names_what_is_at_work(capsys):
    assert list(each([1, 2], 2, str)) == [1, 2]
    assert capsys.readouterr().err == "[1/2] 1\n[2/2] 2\n"


def test_each_names_on_a_terminal_what_is_at_work():
    with contextlib.redirect_stderr(Terminal()) as terminal:
        list(each([1, 2], 2, str))
    assert "[2/2] 2: 2/2 it" in terminal.getvalue()
