"""What ends a command with a sentence for the user, and the exit code that goes with it."""


class UserError(Exception):
    """Bad input, told in one clear sentence; the command line prints it and exits with 2."""

    exit_code = 2


class DivergedError(Exception):
    """A run was given up: loss or gradient were not finite in too many steps in a row."""

    exit_code = 3


class PreemptedError(Exception):
    """A run was asked to stop, has written a checkpoint and can be resumed."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""
