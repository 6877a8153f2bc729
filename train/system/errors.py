"""Errors that end a command with a sentence for the user instead of a traceback."""

import difflib
import re
from collections.abc import Collection, Iterable


class CommandError(Exception):
    """Ends a command with its message."""

    exit_code = 1
    in_every_process = False
    """Whether all processes of a run end with it."""


class UserError(CommandError):
    """Bad input, in one clear sentence; the command line prints it and exits with 2."""

    exit_code = 2


class DoesNotFitError(UserError):
    """Something needs more memory than there is."""


class EchoedError(UserError):
    """Bad input of another process of the run, which prints it."""

    in_every_process = True


class DivergedError(CommandError):
    """A run was given up: loss or gradient were not finite in too many steps in a row."""

    exit_code = 3
    in_every_process = True


class PreemptedError(CommandError):
    """A run was asked to stop, has written a checkpoint and can be resumed."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""
    in_every_process = True


def require_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """A UserError, which lists all that are known, if one of several names is not."""
    for name in names:
        if name not in known:
            raise UserError(
                f"unknown {what} {name!r}{did_you_mean(name, known)}, choose from: "
                f"{', '.join(known)}."
            )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The name that a wrong word is nearest to, to be added to it in a message, if there is one.

    A word may be made of the first letters of a name's parts, as `--lr` is of `--learning-rate`, or
    be the beginning of a name.
    """
    names = sorted(known, key=len)
    parts = {name: [part for part in re.split(r"\W|_", name) if part] for name in names}
    bare = word.strip("-").lower()
    found = (
        *(name for name in names if "".join(part[0] for part in parts[name]) == bare),
        *difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7),
        *(name for name in names if len(bare) > 1 and name.strip("-").startswith(bare)),
    )
    return f" (did you mean {found[0]}?)" if found else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
