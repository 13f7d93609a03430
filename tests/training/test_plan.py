import numpy as np
import pytest

from flowers_tpu.training.history import best_row
from flowers_tpu.training.options import ScheduleOptions, TrainingOptions
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.steps import Objective


def make_plan(*, warmup_epochs=1, epochs=6, patience=2):
    training = TrainingOptions(early_stopping_patience=patience, monitor="val_loss")
    schedule = ScheduleOptions(warmup_epochs=warmup_epochs, epochs=epochs)
    return Plan(schedule, training, 2, 4, 5, np.zeros(0, np.float32), Objective(training, 4))


def history(plan, *losses):
    """The rows of epochs with these validation losses, each kept if the plan says so."""
    rows = []
    for epoch, loss in enumerate(losses):
        row = {"epoch": epoch + 1, "stage": plan.schedule.stage(epoch), "val_loss": loss}
        row["kept"] = plan.is_best(row, rows)
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [([], None), ([0.1], None), ([0.1, 3], 2), ([0.1, 3, 2, 2.5, 2], 3), ([9, np.nan], None)],
)
def test_the_best_epoch_is_one_of_finetuning(losses, epoch):
    """The warm-up's loss counts for nothing, low as it may be."""
    rows = history(make_plan(), *losses)
    assert best_row(rows) is (None if epoch is None else rows[epoch - 1])


def test_without_finetuning_the_best_epoch_is_one_of_the_warmup():
    rows = history(make_plan(warmup_epochs=3, epochs=0), 3, 1, 2)
    assert best_row(rows) is rows[1]


@pytest.mark.parametrize(
    ("losses", "finished"),
    [
        ([], False),
        ([0.1, 3, 2, 2.5], False),
        ([0.1, 3, 2, 2.5, 2], True),  # two epochs of fine-tuning brought nothing better
        ([0.1, 3], False),
        ([0.1, 3, 3.5], False),
        ([7, 6, 5, 4, 3, 2], False),
        ([7, 6, 5, 4, 3, 2, 1], True),  # all epochs are done
    ],
)
def test_when_training_has_ended(losses, finished):
    assert make_plan().finished(history(make_plan(), *losses)) is finished


def test_the_warmup_does_not_stop_early():
    plan = make_plan(warmup_epochs=5, epochs=0)
    assert not plan.finished(history(plan, 1, 2, 3, 4))
    assert plan.finished(history(plan, 1, 2, 3, 4, 5))


def test_without_patience_all_epochs_are_done():
    plan = make_plan(patience=0)
    assert not plan.finished(history(plan, 0, *[9] * 5))
    assert plan.finished(history(plan, 0, *[9] * 6))
