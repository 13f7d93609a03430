"""Who watches a run: a list of those that are told what it came to, and what they are told."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from flowers_tpu.system.errors import first_line
from flowers_tpu.training.calls import Call, EvalCall
from flowers_tpu.training.history import Row


class Epoch(NamedTuple):
    """An epoch that has ended, and is saved.

    Attributes:
        history: a row per finished epoch; this one's is the last.
        times: of this epoch, as in `timing.csv`.
        confusion: of the validation split, `[classes, classes]` with the truth down.
        is_best: whether it is the best so far.
        is_last: whether training has ended with it.
    """

    history: Sequence[Row]
    times: Mapping[str, float]
    confusion: np.ndarray | None
    is_best: bool
    is_last: bool

    @property
    def row(self) -> Row:
        """Its row of the history."""
        return self.history[-1]


class Results(NamedTuple):
    """What a finished run has come to.

    Attributes:
        scores: as `scores.json`.
        pictures: paths of the PNG files of its report.
    """

    scores: Mapping[str, Mapping[str, float | None]]
    pictures: Sequence[str]


class Watcher:
    """Is told what a run came to, after all is saved that has to be. Does nothing by itself.

    A context: it is entered once the run is about to go on, and left however the run ends.
    """

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on_call(self, call: Call) -> None:
        """Takes what a compiled call of training steps came to."""

    def on_validation(self, call: EvalCall) -> None:
        """Takes what a validation has come to after a compiled call."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Takes an epoch that has ended."""

    def on_results(self, results: Results) -> None:
        """Takes what a finished run has come to; training is over, and nothing else is told."""

    def close(self) -> None:
        """Ends what it has begun."""


class Watchers(Watcher):
    """Several watchers as one. An error in one of them is one warning, and it watches no more.

    Watching must not cost a run: it goes on, and what it saves is not touched.
    """

    def __init__(self, watchers: Iterable[Watcher]):
        self._watchers = list(watchers)

    def __enter__(self) -> "Watchers":
        self._tell("__enter__")
        return self

    def on_call(self, call: Call) -> None:
        """Tells all of a call."""
        self._tell("on_call", call)

    def on_validation(self, call: EvalCall) -> None:
        """Tells all of a validation's call."""
        self._tell("on_validation", call)

    def on_epoch(self, epoch: Epoch) -> None:
        """Tells all of an epoch."""
        self._tell("on_epoch", epoch)

    def on_results(self, results: Results) -> None:
        """Tells all of a run's results."""
        self._tell("on_results", results)

    def close(self) -> None:
        """Closes all."""
        self._tell("close")

    def _tell(self, what: str, *values: object) -> None:
        for watcher in list(self._watchers):
            try:
                getattr(watcher, what)(*values)
            except Exception as error:
                self._watchers.remove(watcher)
                logging.warning(
                    "%s: failed (%s: %s); it watches no more, and the run goes on",
                    *(type(watcher).__name__, type(error).__name__, first_line(error)),
                )
                logging.debug("where it went wrong", exc_info=True)
                if what != "close":
                    with contextlib.suppress(Exception):
                        watcher.close()
