"""Progress of long work, and the lines beside it: what `--verbosity` rules stands here once.

In a terminal there is a bar, in a notebook a widget, and where standard error is a file or a pipe
a plain line from time to time. `--verbosity=-2` leaves only results and errors.
"""

import contextlib
import errno
import io
import os
import sys
import time
from logging import WARNING, LogRecord
from typing import Any, Protocol, TextIO

from absl import logging
from tqdm.auto import tqdm

# A plain line comes so long after the one before, seconds, or sooner with another quarter done;
# what ends earlier writes none.
_AT_MOST, _AT_LEAST = 30.0, 5.0


class Bar(Protocol):
    """What shows how far a piece of work is; it goes when it is closed."""

    def update(self, n: int = 1) -> object:
        """Tells that `n` more are done."""

    def set_postfix(self, **values: str) -> None:
        """Shows values behind the rate."""

    def close(self) -> None:
        """Ends it."""

    def __enter__(self) -> "Bar": ...

    def __exit__(self, *_: object) -> None: ...


def bar(total: int, description: str, unit: str = "photos", initial: int = 0) -> Bar:
    """Shows how far a piece of work is, with its rate and the time left, on standard error.

    Args:
        total: of the work.
        description: what it is.
        unit: what is counted.
        initial: how much of it had been done before; no part of the rate.
    """
    if not _in_notebook() and not sys.stderr.isatty():
        return _Lines(total, description, unit, initial)
    moving: Any = tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        unit_scale=True,
        initial=initial,
        disable=_is_quiet(),
        leave=False,
        dynamic_ncols=True,
        file=sys.stderr,
    )
    return moving


def say(text: str = "", file: TextIO | None = None) -> None:
    """Prints a line without breaking a bar, to standard output where no file is given."""
    out = file or sys.stdout
    try:
        tqdm.write(text, file=out)
        out.flush()
    except (BrokenPipeError, ValueError):
        _stop_writing_to(out)
    except OSError as error:
        if error.errno != errno.EIO:  # of a terminal that is gone
            raise
        _stop_writing_to(out)


def _stop_writing_to(file: TextIO) -> None:
    """Goes on without somebody who has stopped to read, as `head` does."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def note(text: str) -> None:
    """Prints a line on how the work goes, which is no result: not with `--verbosity=-2`."""
    if not _is_quiet():
        say(text)


def log_beside_bars() -> None:
    """Makes absl's log lines a line each for a person, and lets them not break a bar."""
    handler = logging.get_absl_handler()
    handler.setFormatter(None)  # the text, without time and place for a log collector
    handler.python_handler.setStream(_BesideBars())
    handler.addFilter(_is_ours_or_serious)


class _Lines:
    """Stands in for a bar where it could not move: writes plain lines, and none for short work."""

    def __init__(self, total: int, description: str, unit: str, initial: int):
        self._total, self._description, self._unit = total, description, unit
        self._done = self._done_before = initial  # now, and at the line before
        self._written_at = time.monotonic()
        self._postfix = ""

    def update(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        seconds = now - self._written_at
        if self._done < self._total and (
            seconds >= _AT_MOST or (seconds >= _AT_LEAST and self._is_another_quarter())
        ):
            if not _is_quiet():
                self._write((self._done - self._done_before) / seconds)
            self._done_before, self._written_at = self._done, now

    def set_postfix(self, **values: str) -> None:
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        pass

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_another_quarter(self) -> bool:
        return 4 * self._done // self._total > 4 * self._done_before // self._total

    def _write(self, rate: float) -> None:
        left = f", {_duration((self._total - self._done) / rate)} left" if rate else ""
        print(
            f"{self._description}: {self._done:,} of {self._total:,} {self._unit} "
            f"({100 * self._done // self._total} %), {rate:,.{0 if rate >= 10 else 1}f}/s"
            f"{left}{self._postfix}",
            file=sys.stderr,
            flush=True,
        )


class _BesideBars(io.TextIOBase):
    """Standard error, whatever it is just then, for whole lines beside bars."""

    def write(self, text: str) -> int:
        with tqdm.external_write_mode(file=sys.stderr):
            return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _is_ours_or_serious(record: LogRecord) -> bool:
    """Leaves out what other libraries say of themselves when `--verbosity` is high."""
    return record.levelno >= WARNING or record.name in ("absl", "tensorflow")


def _is_quiet() -> bool:
    return logging.get_verbosity() < logging.WARNING


def _in_notebook() -> bool:
    """Whether bars are widgets; in a notebook without `ipywidgets` they are not."""
    return any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
