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


def make_row(
    *,
    epoch: int,
    stage: str,
    steps_per_epoch: int,
    learning_rate: float,
    train: Scores,
    val: Scores,
    skipped: Sequence[int],
) -> Row:
    """Returns the row of an epoch that has ended.

    Args:
        epoch: counted from 0.
        stage: `warmup` or `finetune`.
        steps_per_epoch: of the run.
        learning_rate: of the epoch's last step.
        train: scores of the training photos.
        val: scores of the validation split.
        skipped: steps of the run whose update was left out.
    """
    begin, end = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
    return {
        "epoch": epoch + 1,
        "stage": stage,
        "step": end,
        "learning_rate": learning_rate,
        **train,
        **{f"val_{name}": value for name, value in val.items()},
        "skipped_steps": sum(begin <= step < end for step in skipped),
    }


def best_epoch(rows: Sequence[Row]) -> int | None:
    """Returns the index of the lowest validation loss, the first of equals; None without any."""
    losses = [row["val_loss"] for row in rows]
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    return min(finite, key=losses.__getitem__, default=None)


def should_stop(rows: Sequence[Row], patience: int) -> bool:
    """Returns whether the last `patience` epochs all brought nothing better; 0: never."""
    best = best_epoch(rows)
    return bool(patience) and len(rows) - (0 if best is None else best + 1) >= patience
