from math import inf, nan

import pytest

from flowers_tpu.training.history import (
    best_row,
    is_better,
    make_row,
    of_version_0_1,
    should_stop,
)


def history(values, monitor="val_loss"):
    """Rows of epochs, each kept if it is better than what was kept before."""
    rows = []
    for value in values:
        row = {monitor: value, "stage": "finetune"}
        row["kept"] = is_better(row, best_row(rows), monitor)
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], None),
        ([3], 0),
        ([3, 1, 2], 1),
        ([2, 1, 1], 1),
        ([nan, 2, nan, 1, nan], 3),
        ([nan, inf], None),
        ([nan, nan, 5], 2),
    ],
)
@pytest.mark.parametrize("monitor", ["val_loss", "val_macro_f1", "val_accuracy"])
def test_the_best_epoch_is_the_first_with_the_best_value(losses, expected, monitor):
    values = losses if monitor == "val_loss" else [-loss for loss in losses]
    rows = history(values, monitor)
    assert best_row(rows) is (None if expected is None else rows[expected])


def test_what_is_watched_may_change_and_what_was_saved_counts_until_something_is_better():
    rows = [
        {"val_loss": 1.0, "val_macro_f1": 0.5, "kept": True},
        {"val_loss": 2.0, "val_macro_f1": 0.9, "kept": False},
    ]
    assert best_row(rows) is rows[0], "its weights are those that were saved"
    assert is_better({"val_macro_f1": 0.6}, best_row(rows), "val_macro_f1")
    assert not is_better({"val_loss": 1.5}, best_row(rows), "val_loss")


def test_rows_of_version_0_1_kept_the_lowest_loss_of_finetuning():
    rows = [
        {"stage": stage, "val_loss": loss}
        for stage, loss in (
            ("warmup", 0.1),
            ("finetune", 3.0),
            ("finetune", 2.0),
            ("finetune", 2.0),
        )
    ]
    assert [row["kept"] for row in of_version_0_1(rows)] == [False, True, True, False]
    assert best_row(of_version_0_1([{**row, "kept": False} for row in rows])) is None


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 1, False),
        ([3], 1, False),
        ([3, 4], 1, True),
        ([3, 4], 2, False),
        ([3, 4, 3.5], 2, True),
        ([3, 4, 2.9], 2, False),  # better again in time
        ([3, 4, 2.9, 3, 3], 2, True),
        ([3, 3, 3], 2, True),  # as good is not better
        ([5, 4, 3, 2, 1], 1, False),
        ([9, *[10] * 99], 0, False),
        ([nan], 2, False),
        ([nan, nan], 2, True),
        ([nan, nan, 5], 2, False),
        ([1, nan], 2, False),
        ([1, nan, nan], 2, True),
        ([1, inf, 2], 2, True),
    ],
)
def test_training_stops_after_patience_epochs_without_a_better_loss(losses, patience, expected):
    assert should_stop(history(losses), patience) is expected


TRAIN = {"loss": 0.5, "accuracy": 0.6, "top5_accuracy": 0.7, "macro_f1": 0.4}
VAL = {"loss": 0.9, "accuracy": 0.5, "top5_accuracy": 0.8, "macro_f1": 0.3}


def test_a_row_by_hand():
    """The third epoch of 10 steps; its first is step 20, its last step 29."""
    row = make_row(
        **{"epoch": 2, "stage": "finetune", "steps_per_epoch": 10, "learning_rate": 1e-3},
        **{"train": TRAIN, "val": VAL, "skipped": [3, 19, 20, 24, 29, 30]},
    )
    expected = {
        **{"epoch": 3, "stage": "finetune", "step": 30, "learning_rate": 1e-3},
        **{"loss": 0.5, "accuracy": 0.6, "top5_accuracy": 0.7, "macro_f1": 0.4},
        **{"val_loss": 0.9, "val_accuracy": 0.5, "val_top5_accuracy": 0.8, "val_macro_f1": 0.3},
        "skipped_steps": 3,
        "kept": False,
    }
    assert row == expected
    # The order of the columns of history.csv.
    assert list(row) == list(expected)
