"""Metrics as sums: empty, added up over steps and replicas, and turned into scores at the end.

F1 is no mean over batches, so what is summed is a confusion matrix; every score of whole numbers
then follows exactly, whatever the batches were.
"""

import math

import numpy as np
import tensorflow as tf

TOP_K = 5


def batch_sums(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, losses: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the sums of one replica's batch; add them over replicas and steps.

    Args:
        logits: `[batch, classes]` float32.
        labels: `[batch]` int32.
        weights: `[batch]` float32: 1, or 0 for padding.
        losses: `[batch]` float32.

    Returns:
        float32 `loss`, `weight` and `top5` (scalars) and `confusion` `[classes, classes]`, whose
        rows are the truth and columns the prediction.
    """
    num_classes = logits.shape[-1]
    truth = tf.one_hot(labels, num_classes)
    prediction = tf.one_hot(tf.argmax(logits, axis=-1), num_classes)
    # The rank of the true class, from 0: how many classes have a larger logit.
    own_logit = tf.reduce_sum(logits * truth, axis=-1, keepdims=True)
    # Counted by "not smaller or equal", so that NaN ranks last, not first.
    rank = tf.reduce_sum(tf.cast(~(logits <= own_logit), tf.float32), axis=-1)
    return {
        "loss": tf.reduce_sum(losses * weights),
        "weight": tf.reduce_sum(weights),
        "top5": tf.reduce_sum(weights * tf.cast(rank < TOP_K, tf.float32)),
        # A product of one-hot matrices is static and fast on every device; a scatter is not.
        "confusion": tf.matmul(truth * weights[:, tf.newaxis], prediction, transpose_a=True),
    }


def empty(num_classes: int) -> dict[str, np.ndarray]:
    """Returns the sums of nothing, in float64: steps are added one by one, always in order."""
    return {
        "loss": np.zeros((), np.float64),
        "weight": np.zeros((), np.float64),
        "top5": np.zeros((), np.float64),
        "confusion": np.zeros((num_classes, num_classes), np.float64),
    }


def scores(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Turns sums into `loss`, `accuracy`, `top5_accuracy` and `macro_f1`; NaN where none count."""
    weight = float(sums["weight"]) or math.nan
    confusion = np.asarray(sums["confusion"])
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
