"""What a clock or a signal decides, made in one place: at the boundary of two compiled calls."""

import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

from flowers_tpu.runs.options import RunOptions
from flowers_tpu.training.calls import Decision
from flowers_tpu.training.pacing import Pacer

# Time kept for the scores: of what the speed of the validations makes of them, and of all of
# `--max_hours` until one is done.
_MARGIN, _UNKNOWN_SHARE = 2.0, 0.1


class AsksToStop(Protocol):
    """What may ask a run to stop, as `system.signals.Signals` does."""

    @property
    def stop_requested(self) -> bool:
        """Whether it does."""
        ...

    def check(self) -> None:
        """Raises StoppedError if it has."""


def _alone(decision: Decision) -> Decision:
    return decision


@dataclasses.dataclass
class TrainingBoundary:
    """Decides in training: by the clock, the intervals of checkpoints, and signals.

    Attributes:
        signals: may ask to stop.
        options: with the intervals at which to save, and `max_hours`.
        began_at: when the command began, seconds of the clock.
        clock: gives the time, seconds.
        agree: makes one decision of those of several workers.
    """

    signals: AsksToStop
    options: RunOptions
    began_at: float
    clock: Callable[[], float] = time.monotonic
    agree: Callable[[Decision], Decision] = _alone

    def __post_init__(self) -> None:
        self._seconds_for_scores = _UNKNOWN_SHARE * self.options.max_hours * 3600
        self.saved()

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> Decision:
        """See `calls.Boundary`."""
        steps = pacer.steps(self._next_end(step, epoch_end) - step)
        stop = self.stop()
        # An epoch's end is saved with its validation.
        save = bool(stop) or (step < epoch_end and self._save_is_due(step))
        return self.agree(Decision(steps, save, stop))

    def stop(self) -> str:
        """Returns why to stop now; '' to go on."""
        if self.signals.stop_requested:
            return "signal"
        if not (hours := self.options.max_hours):
            return ""
        end = self.began_at + hours * 3600 - self._seconds_for_scores
        return "time" if self.clock() >= end else ""

    def saved(self) -> None:
        """Begins the interval to the next save."""
        self._saved_at = self.clock()

    def reserve_for_scores(self, photos: int, seconds_per_photo: float) -> None:
        """Keeps time for the scores at the end.

        Args:
            photos: of all splits.
            seconds_per_photo: that the last validation took.
        """
        self._seconds_for_scores = _MARGIN * photos * seconds_per_photo

    def _next_end(self, step: int, epoch_end: int) -> int:
        """The step at which the next call ends at the latest."""
        every = self.options.checkpoint_every_steps
        save = (step // every + 1) * every if every else epoch_end
        watched = (stop for stop in self.options.profiled_steps or () if stop > step)
        return min(epoch_end, save, *watched)

    def _save_is_due(self, step: int) -> bool:
        every, seconds = (
            self.options.checkpoint_every_steps,
            self.options.checkpoint_every_minutes * 60,
        )
        return bool(
            (every and step % every == 0) or (seconds and self.clock() - self._saved_at >= seconds)
        )


@dataclasses.dataclass
class EvaluationBoundary:
    """Decides in an evaluation, which only a signal ends early; all is saved then.

    Attributes:
        signals: may ask to stop.
        agree: makes one decision of those of several workers.
    """

    signals: AsksToStop
    agree: Callable[[Decision], Decision] = _alone

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> Decision:
        """See `calls.Boundary`."""
        stop = "signal" if self.signals.stop_requested else ""
        return self.agree(Decision(pacer.steps(epoch_end - step), save=bool(stop), stop=stop))
