"""The one error that a user can cause."""


class UnusableInput(Exception):
    """What the user gave can't be used: one line says what is wrong, with which file, what to do.

    The command line prints the line on stderr and exits with 2.
    """
