"""The ways a command can end other than well, each with its exit code, and how one reads."""


class RequestError(Exception):
    """The request is wrong: a flag, a file or the data. Exit code 2.

    The message is all a person gets to see: it names the flag or the file and record, what was
    found, what was expected, and what to do.
    """

    exit_code = 2


class RunError(Exception):
    """The request was right, yet the work failed. Exit code 1."""

    exit_code = 1


class StoppedError(Exception):
    """Stopped by a signal; the work is saved and the same command continues. Exit code 143."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """The gist of an error, at most 200 characters: no addresses, no tracebacks."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
