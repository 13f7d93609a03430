"""Predictions of a whole split, and the tables made of them."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu import progress
from flowers_tpu.evaluation.scores import log_probabilities
from flowers_tpu.interruption import Interruption


def predict(
    predict_step: Callable[[Iterator], tf.Tensor],
    iterator: Iterator,
    num_examples: int,
    *,
    title: str,
    interruption: Interruption,
) -> np.ndarray:
    """Returns the logits of a split in file order, `[num_examples, classes]` float32.

    Args:
        predict_step: gives the logits of the next global batch.
        iterator: over the split, the last batch filled up.
        num_examples: of the split; the logits of the filling are dropped.
        title: of the progress bar.
        interruption: polled between batches.
    """
    batches, done = [], 0
    with progress.bar(num_examples, title) as bar:
        while done < num_examples:
            logits = predict_step(iterator).numpy()
            batches.append(logits)
            bar.update(min(len(logits), num_examples - done))
            done += len(logits)
            interruption.check()
    return np.concatenate(batches)[:num_examples]


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
