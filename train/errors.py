"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input, told in one clear sentence; the command line prints it and exits with 2."""
