"""Metrics as sums: empty, added to call by call, and turned into scores at the end.

F1 is no mean over batches, so what is summed is a confusion matrix; every score of whole numbers
then follows exactly, whatever the batches were. A step gives a row per example, and the matrix is
made of them here: one at every step was 15% of the smallest network's step.
"""

import math
from typing import TypedDict

import numpy as np
import tensorflow as tf

TOP_K = 5
COLUMNS = ("label", "predicted", "top5", "weight", "loss")


class Sums(TypedDict):
    """What is added up of examples: float64 `[]`, `[]` and `[classes, classes]`."""

    loss: np.ndarray
    top5: np.ndarray
    confusion: np.ndarray


class Scores(TypedDict):
    """What sums come to."""

    loss: float
    accuracy: float
    top5_accuracy: float
    macro_f1: float


def outcomes(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, losses: tf.Tensor
) -> tf.Tensor:
    """Returns what became of each example of a batch: `[batch, COLUMNS]` float32.

    `top5` is 1 if fewer than five classes have a larger logit than the true one, and all logits of
    the example are finite. Class numbers are exact in float32, up to 2^24 of them.

    Args:
        logits: `[batch, classes]` float32.
        labels: `[batch]` int32.
        weights: `[batch]` float32: 1, or 0 for padding.
        losses: `[batch]` float32.
    """
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1)
    top5 = tf.math.in_top_k(labels, logits, TOP_K) & finite
    columns = (labels, predicted, top5, weights, losses)
    return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=-1)


def empty(num_classes: int) -> Sums:
    """Returns the sums of nothing: float64 `loss`, `top5`, and `confusion` `[classes, classes]`.

    The rows of `confusion` are the truth and its columns the prediction.
    """
    return {
        "loss": np.zeros((), np.float64),
        "top5": np.zeros((), np.float64),
        "confusion": np.zeros((num_classes, num_classes), np.float64),
    }


def added(sums: Sums, rows: np.ndarray) -> Sums:
    """Returns the sums with those of `outcomes` `[examples, COLUMNS]`, in order, added to them.

    Losses are added one after the other, so it makes no difference how rows come together.
    """
    label, predicted, top5, _, loss = rows[rows[:, COLUMNS.index("weight")] > 0].T
    confusion = sums["confusion"].copy()
    np.add.at(confusion, (label.astype(int), predicted.astype(int)), 1)
    return {
        "loss": np.cumsum(np.append(sums["loss"], loss))[-1],
        "top5": sums["top5"] + top5.sum(),
        "confusion": confusion,
    }


def scores(sums: Sums) -> Scores:
    """Turns sums into `loss`, `accuracy`, `top5_accuracy` and `macro_f1`; NaN where none count."""
    confusion = np.asarray(sums["confusion"])
    weight = float(confusion.sum()) or math.nan
    return {
        "loss": float(sums["loss"]) / weight,
        "accuracy": float(np.trace(confusion)) / weight,
        "top5_accuracy": float(sums["top5"]) / weight,
        "macro_f1": macro_f1(confusion),
    }


def macro_f1(confusion: np.ndarray) -> float:
    """The mean F1 over the classes that occur in truth or prediction, as scikit-learn's.

    Args:
        confusion: `[classes, classes]`, rows the truth.
    """
    right = np.diag(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = occurrences > 0
    if not present.any():
        return math.nan
    return float(np.mean(2 * right[present] / occurrences[present]))
