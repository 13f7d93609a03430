"""Predictions of a whole split, and the tables made of them."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu.evaluation.scores import log_probabilities


def predict(
    predict_step: Callable[[Iterator], tf.Tensor], iterator: Iterator, num_examples: int
) -> Iterator[np.ndarray]:
    """Yields the logits of a split in file order, `[batch, classes]` float32, batch by batch.

    Args:
        predict_step: gives the logits of the next global batch.
        iterator: over the split, the last batch filled up.
        num_examples: of the split; the logits of the filling are dropped.
    """
    done = 0
    while done < num_examples:
        logits = predict_step(iterator).numpy()[: num_examples - done]
        done += len(logits)
        yield logits


def usual_confidence(confidence: np.ndarray, part: float = 0.95) -> float:
    """Returns the largest confidence that a part of the predictions reach, at least."""
    return float(np.quantile(confidence, 1 - part, method="lower"))


def table(
    ids: np.ndarray, logits: np.ndarray, labels: np.ndarray | None, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Returns a row per example: `id`, the truth where known, the prediction and its confidence.

    Columns: `id`, `label`, `name` (both only where `labels` is given), `predicted_label`,
    `predicted_name`, `confidence` (probability of the predicted class) and `loss` (cross-entropy;
    only where `labels` is given).
    """
    names = np.asarray(class_names)
    log_p = log_probabilities(logits)
    predicted = logits.argmax(axis=1)
    rows = np.arange(len(ids))
    columns = {"id": ids}
    if labels is not None:
        columns |= {"label": labels, "name": names[labels]}
    columns |= {
        "predicted_label": predicted,
        "predicted_name": names[predicted],
        "confidence": np.exp(log_p[rows, predicted]),
    }
    if labels is not None:
        columns["loss"] = -log_p[rows, labels]
    return pd.DataFrame(columns)
