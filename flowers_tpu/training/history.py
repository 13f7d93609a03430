"""The rows of a history, a finished epoch each, and what follows from them."""

import math
from collections.abc import Sequence
from typing import TypedDict

from flowers_tpu.training.metrics import Scores


class Row(TypedDict):
    """A finished epoch, as in `history.csv` and in checkpoints.

    `loss`, `accuracy`, `top5_accuracy` and `macro_f1` are of the training photos as they were seen;
    those that begin with `val_` are of the validation split.
    """

    epoch: int  # counted from 1
    stage: str  # `warmup` or `finetune`
    step: int  # steps done at its end
    learning_rate: float  # of its last step
    loss: float
    accuracy: float
    top5_accuracy: float
    macro_f1: float
    val_loss: float
    val_accuracy: float
    val_top5_accuracy: float
    val_macro_f1: float
    skipped_steps: int  # whose update was left out
    kept: bool  # whether its weights were kept, as it was better than all before


def make_row(
    *,
    epoch: int,
    stage: str,
    steps_per_epoch: int,
    learning_rate: float,
    train: Scores,
    val: Scores | None,
    skipped: Sequence[int],
) -> Row:
    """Returns the row of an epoch that has ended; whether it is kept is not decided yet.

    Args:
        epoch: counted from 0.
        stage: `warmup` or `finetune`.
        steps_per_epoch: of the run.
        learning_rate: of the epoch's last step.
        train: scores of the training photos.
        val: scores of the validation split; None if nothing validates, whose columns are NaN.
        skipped: steps of the run whose update was left out.
    """
    none = Scores(loss=math.nan, accuracy=math.nan, top5_accuracy=math.nan, macro_f1=math.nan)
    val = val or none
    begin, end = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
    return {
        "epoch": epoch + 1,
        "stage": stage,
        "step": end,
        "learning_rate": learning_rate,
        "loss": train["loss"],
        "accuracy": train["accuracy"],
        "top5_accuracy": train["top5_accuracy"],
        "macro_f1": train["macro_f1"],
        "val_loss": val["loss"],
        "val_accuracy": val["accuracy"],
        "val_top5_accuracy": val["top5_accuracy"],
        "val_macro_f1": val["macro_f1"],
        "skipped_steps": sum(begin <= step < end for step in skipped),
        "kept": False,
    }


def is_better(row: Row, best: Row | None, monitor: str) -> bool:
    """Returns whether an epoch is better than the best one so far; of equals the earlier is.

    Args:
        row: of the epoch.
        best: of the best one; None if there is none.
        monitor: what is watched: `val_macro_f1`, `val_accuracy` or `val_loss`.
    """
    sign = -1 if monitor == "val_loss" else 1
    if not math.isfinite(row[monitor]):
        return False
    return best is None or sign * row[monitor] > sign * best[monitor]


def best_row(rows: Sequence[Row]) -> Row | None:
    """Returns the row of the epoch whose weights are kept as the best ones, or None.

    It is the last one that was better than the best before it. So it is the one that was saved,
    also if something else was watched in the meantime.
    """
    return next((row for row in reversed(rows) if row["kept"]), None)


def should_stop(rows: Sequence[Row], patience: int) -> bool:
    """Returns whether the last `patience` epochs all brought nothing better; 0: never."""
    best = best_row(rows)
    since = len(rows) if best is None else len(rows) - rows.index(best) - 1
    return bool(patience) and since >= patience


def of_version_0_1(rows: list[Row]) -> list[Row]:
    """Returns the rows of a run of version 0.1, which kept the epoch of the lowest loss."""
    best: Row | None = None
    for row in rows:
        if "kept" not in row:
            row["kept"] = row["stage"] == "finetune" and is_better(row, best, "val_loss")
        best = row if row["kept"] else best
    return rows
