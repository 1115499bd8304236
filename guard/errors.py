"""The one error that a user can cause, and how errors of others are quoted."""


class UnusableInput(Exception):
    """What the user gave can't be used: one line says what is wrong, with which file, what to do.

    The command line prints the line on stderr and exits with 2.
    """


def one_line(error: BaseException) -> str:
    """What an error of others says first, at most 160 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
