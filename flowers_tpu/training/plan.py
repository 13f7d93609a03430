"""What a run is going to do, in numbers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flowers_tpu.training.history import Row, best_row, is_better, should_stop
from flowers_tpu.training.options import ScheduleOptions, TrainingOptions
from flowers_tpu.training.steps import Objective


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is going to do on its data and devices.

    Attributes:
        schedule: as asked for.
        training: as asked for.
        num_classes: classes.
        photos_per_step: the global batch.
        steps_per_epoch: training photos // global batch.
        rates: `[total epochs * steps_per_epoch]` float32, the learning rate of every step.
        objective: what to minimize.
        validates: whether there are validation photos; without any the last epoch is kept.
    """

    schedule: ScheduleOptions
    training: TrainingOptions
    num_classes: int
    photos_per_step: int
    steps_per_epoch: int
    rates: np.ndarray
    objective: Objective
    validates: bool = True

    def is_best(self, row: Row, history: list[Row]) -> bool:
        """Returns whether an epoch is kept: better than all before it of those that may be.

        Args:
            row: of the epoch.
            history: before it.
        """
        may_be_kept = row["stage"] == "finetune" or not self.schedule.epochs
        if not self.validates:
            return may_be_kept
        return may_be_kept and is_better(row, best_row(history), self.training.monitor)

    def finished(self, history: Sequence[Row]) -> bool:
        """Returns whether all epochs are done, or fine-tuning has stopped improving."""
        return finished(self.schedule, self.training, history)


def finished(schedule: ScheduleOptions, training: TrainingOptions, history: Sequence[Row]) -> bool:
    """Returns whether a history is that of a run whose training has ended."""
    rows = history[schedule.warmup_epochs :]
    return len(history) >= schedule.total_epochs or should_stop(
        rows, training.early_stopping_patience
    )
