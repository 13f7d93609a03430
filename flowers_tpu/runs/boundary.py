"""What a clock or a signal decides, made in one place: at the boundary of two compiled calls."""

import dataclasses
import time
from typing import Protocol

from flowers_tpu.runs.options import RunOptions
from flowers_tpu.training.calls import Decision
from flowers_tpu.training.pacing import Pacer


class AsksToStop(Protocol):
    """What may ask a run to stop, as `system.signals.Signals` does."""

    stop_requested: bool


@dataclasses.dataclass
class TrainingBoundary:
    """Decides in training: by the clock, the intervals of checkpoints, and signals.

    Attributes:
        signals: may ask to stop.
        options: with the intervals at which to save.
        saved_at: time of the last save, seconds of the monotonic clock.
    """

    signals: AsksToStop
    options: RunOptions
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> Decision:
        """See `calls.Boundary`."""
        steps = pacer.steps(self._next_end(step, epoch_end) - step)
        stop = self.signals.stop_requested
        # An epoch's end is saved with its validation.
        return Decision(steps, stop or (step < epoch_end and self._save_is_due(step)), stop)

    def saved(self) -> None:
        """Begins the interval to the next save."""
        self.saved_at = time.monotonic()

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
            (every and step % every == 0)
            or (seconds and time.monotonic() - self.saved_at >= seconds)
        )


@dataclasses.dataclass
class EvaluationBoundary:
    """Decides in an evaluation, where only a signal ends it early; all is saved then.

    Attributes:
        signals: may ask to stop.
    """

    signals: AsksToStop

    def decide(self, step: int, epoch_end: int, pacer: Pacer) -> Decision:
        """See `calls.Boundary`."""
        stop = self.signals.stop_requested
        return Decision(pacer.steps(epoch_end - step), save=stop, stop=stop)
