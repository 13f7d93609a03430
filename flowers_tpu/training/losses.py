"""Losses per example and the regularization of weights."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Returns each example's cross-entropy, `[batch]` float32.

    Args:
        logits: `[batch, classes]`.
        labels: `[batch]` int32.
        label_smoothing: part of each label that is spread evenly over all classes
            (Szegedy et al., 2016, arXiv:1512.00567).
    """
    logits = tf.cast(logits, tf.float32)
    if not label_smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    num_classes = logits.shape[-1]
    targets = tf.one_hot(
        labels,
        num_classes,
        on_value=1 - label_smoothing + label_smoothing / num_classes,
        off_value=label_smoothing / num_classes,
    )
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def l2_penalty(variables: Sequence[tf.Variable], factor: float) -> tf.Tensor:
    """Returns `factor` times the sum of the squares of all kernels (not of biases and scales)."""
    return factor * tf.add_n([tf.reduce_sum(tf.square(v)) for v in variables if v.shape.rank > 1])


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns scikit-learn's balanced weights, `[num_classes]` float32.

    A class that occurs has the weight `examples / (occurring classes * its examples)`, so the mean
    over the examples is 1; one that does not occur has 1.
    """
    # Late: it takes 25 MB and half a second to import, and little needs it.
    from sklearn.utils.class_weight import compute_class_weight

    weights = np.ones(num_classes, np.float32)
    present = np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights
