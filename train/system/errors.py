"""What ends a command with a sentence for the user, and the exit code that goes with it."""


class CommandError(Exception):
    """What is told instead of a traceback.

    Attributes:
        exit_code: of the command.
        agreed: whether it ends all processes of a run alike.
    """

    exit_code = 1
    agreed = False


class UserError(CommandError):
    """Bad input, told in one clear sentence; the command line prints it and exits with 2."""

    exit_code = 2


class EchoedError(UserError):
    """Bad input of another process of the run, which tells it."""

    agreed = True


class DivergedError(CommandError):
    """A run was given up: loss or gradient were not finite in too many steps in a row."""

    exit_code = 3
    agreed = True


class PreemptedError(CommandError):
    """A run was asked to stop, has written a checkpoint and can be resumed."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""
    agreed = True


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's code says, cut to fit into a sentence."""
    return (str(error) or type(error).__name__).splitlines()[0]
