import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.train.conftest import ROOT
from train.options.command import Command, argument, option, parse, run_program
from train.options.shared import Recorded
from train.options.values import list_of, positive
from train.system.errors import DivergedError, PreemptedError, UserError


@dataclass(kw_only=True)
class CookRice(Command):
    """Cook rice.

    Cooks it, 100 % done.
    """

    epilog = lambda: "Wash it first."  # noqa: E731

    kind: str = argument("of rice", metavar="KIND")
    guests: list[str] = argument("who eats", metavar="GUEST", many=True)
    cups: int = option(2, "how much", metavar="N")
    pot: Path | None = option(None, "in what")
    heat: Literal["low", "high"] = option("low", "how hot", group="the stove")
    times: list[int] | None = option(None, "minutes", parse=list_of(positive))
    spices: list[str] = option(["salt"], "what goes in")
    quickly: bool = option(False, "in a hurry", instead="pace")
    slowly: bool = option(False, "in no hurry", instead="pace")

    def run(self) -> int:
        return {"basmati": 0, "stale": 4}[self.kind]


@dataclass(kw_only=True)
class Serve(Command):
    """Serve it."""

    plate: str = option(..., "on what")


def read(*words: str) -> Command:
    return parse("program", "Does it.", [CookRice, Serve], words)


def test_a_line_becomes_a_command():
    words = ("cook-rice", "basmati", "Ann", "Bo", "--cups", "3", "--times", "5,10,5", "--slowly")
    command = read(*words, "--spices", "salt", "cumin", "--heat", "high", "--pot", "iron")
    assert command == CookRice(
        arguments=(*words, "--spices", "salt", "cumin", "--heat", "high", "--pot", "iron"),
        kind="basmati",
        guests=["Ann", "Bo"],
        cups=3,
        pot=Path("iron"),
        heat="high",
        times=[5, 10],
        spices=["salt", "cumin"],
        slowly=True,
    )
    twice = read(*words, "--spices", "salt", "--cups", "2", "--spices", "cumin", "--times", "7")
    assert (twice.spices, twice.cups, twice.times) == (["salt", "cumin"], 2, [5, 10, 7])
    plain = read("cook-rice", "basmati", "Ann")
    assert (plain.cups, plain.pot, plain.heat, plain.times) == (2, None, "low", None)
    assert (plain.spices, plain.quickly) == (["salt"], False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["cook"], "invalid choice: 'cook' .*cook-rice.*serve"),
        (["serve"], "required: --plate; program serve --help explains"),
        (["cook-rice", "basmati", "Ann", "--cups", "many"], "--cups: 'many' is not a whole number"),
        (["cook-rice", "basmati", "Ann", "--cups"], "expected one argument"),
        (["cook-rice", "basmati", "Ann", "--cup", "3"], r"'--cup' \(did you mean --cups\?\)"),
        (["cook-rice", "basmati", "Ann", "--lid"], "the options of cook-rice are --cups, --heat, "),
        (["cook-rice", "basmati", "Ann", "--heat", "no"], "invalid choice: 'no'"),
        (["cook-rice", "basmati", "Ann", "--times", "5,"], "'5,' is not a list"),
        (["cook-rice", "basmati", "Ann", "--times", "0"], "'0' is not a whole number of at least"),
        (["cook-rice", "basmati", "Ann", "--quickly", "--slowly"], "not allowed with"),
    ],
)
def test_what_is_wrong_is_one_sentence(words, message):
    with pytest.raises(UserError, match=message):
        read(*words)


def test_help_has_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        read("cook-rice", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: program cook-rice KIND GUEST ... [OPTION ...]" in text
    assert "Cooks it, 100 % done." in text
    assert "how much (default: 2)" in text
    assert "what goes in (default: salt)" in text
    assert "the stove: --heat {low,high} how hot (default: low)" in text
    assert text.endswith("Wash it first.")
    with pytest.raises(SystemExit):
        read("--help")
    assert "cook-rice cook rice serve serve it" in " ".join(capsys.readouterr().out.split())


def run(*words: str) -> int:
    return run_program("program", "", [CookRice, Serve], words)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("no."), 2, "error: no.\n"),
        (UserError("no a\nerror: b:\n  c\n  d"), 2, "error: no a\\nerror: b:\n  c\n  d\n"),
        (DivergedError("no."), 3, "error: no.\n"),
        (PreemptedError("later."), 75, "later.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_ends_a_command_early_is_told_with_its_exit_code(
    error, code, text, monkeypatch, capsys
):
    def fail(self):
        raise error

    assert run("cook-rice", "stale", "Ann") == 4
    monkeypatch.setattr(CookRice, "run", fail)
    assert run("cook-rice", "basmati", "Ann") == code
    assert capsys.readouterr().err == text


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "train", "presets"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait(60) == 141


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("presets >/dev/full", 2, "error: stdout cannot be written (No space left on device)"),
        ("presets >&-", 0, ""),
        ("fit dgits 2>/dev/full", 2, ""),
        ("evaluate '\x1b[2J'", 2, r"error: \x1b[2J holds no run"),
    ],
)
def test_output_that_goes_nowhere_or_is_no_text(command, code, said):
    ended = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m train {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == bool(said)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_letters_that_stdout_does_not_have_are_numbers(encoding, monkeypatch):
    @dataclass(kw_only=True)
    class Show(Command):
        """Show it."""

        def run(self) -> int:
            print("猫", b"caf\xe9".decode("utf-8", "surrogateescape"))
            return 0

    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert run_program("program", "", [Show], ["show"]) == 0
    cat = "猫".encode(encoding, "backslashreplace")
    assert printed.getvalue() == cat + b" caf\\udce9\n"


def test_a_command_is_kept_in_one_line_that_commands_no_terminal():
    """In the tables of the docs and the pages of studies."""
    command = Recorded(arguments=("compare", "--out", "a b\n\x1b[2J"))
    assert command.line == r"python -m train compare --out 'a b\n\x1b[2J'"
