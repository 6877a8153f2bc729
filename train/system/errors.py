"""Errors that end a command with a sentence for the user instead of a traceback."""

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
            raise UserError(f"unknown {what} {name!r}, choose from: {', '.join(known)}.")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
