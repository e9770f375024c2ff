"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input, told in one line: the rule, the value that came, the remedy.

    The command line prints the message without a traceback and exits with code 2.

    >>> raise UserError("mask ratio must lie in [0, 1), not 1.2: choose for example 0.15")
    Traceback (most recent call last):
    ...
    chexmsn.core.errors.UserError: mask ratio must lie in [0, 1), not 1.2: choose for example 0.15
    """


class CheckFailed(Exception):
    """What was checked is not as it should be, and has been told; the command line exits with code 1."""
