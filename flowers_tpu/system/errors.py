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


_MOST, _END = 200, 90  # characters of the gist of an error, and of them of its end


def first_line(error: BaseException) -> str:
    """The gist of an error, at most 200 characters: no addresses, no tracebacks.

    Of a longer one the middle is left out: paths come first, and what is wrong with them last.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if len(line) <= _MOST:
        return line
    return f"{line[: _MOST - _END - 3]} … {line[-_END:]}"
