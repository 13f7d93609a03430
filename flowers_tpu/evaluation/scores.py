"""Scores of predictions against the truth, by scikit-learn."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn import metrics

from flowers_tpu.evaluation import intervals
from flowers_tpu.training.metrics import TOP_K


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax, `[examples, classes]` float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences scikit-learn, which takes many classes of few photos for a regression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"sklearn\.", category=UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        warnings.filterwarnings("ignore", "A single label was found")
        yield


@_without_warnings()
def score(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Returns `examples`, `loss`, `accuracy`, `top5_accuracy` and the macro scores.

    `macro_f1_low` and `macro_f1_high` are the bounds of its 95 % interval; see `intervals`.

    Args:
        labels: `[examples]` int.
        logits: `[examples, classes]` float.
    """
    predicted = logits.argmax(axis=1)
    own = logits[np.arange(len(labels)), labels]
    rank = (~(logits <= own[:, np.newaxis])).sum(axis=1)
    in_top = (rank < TOP_K) & np.isfinite(logits).all(axis=1)
    loss = -log_probabilities(logits)[np.arange(len(labels)), labels].mean()
    average = {"average": "macro", "zero_division": 0}
    low, high = intervals.macro_f1_interval(labels, predicted)
    return {
        "examples": len(labels),
        "loss": float(loss),
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "top5_accuracy": float(in_top.mean()),
        "macro_f1": float(metrics.f1_score(labels, predicted, **average)),
        "macro_f1_low": low,
        "macro_f1_high": high,
        "macro_precision": float(metrics.precision_score(labels, predicted, **average)),
        "macro_recall": float(metrics.recall_score(labels, predicted, **average)),
    }


@_without_warnings()
def classification_report(
    labels: np.ndarray, predicted: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Returns scikit-learn's report: a row per class, then the averages.

    The index is the class name; columns `label` (empty for averages), `precision`, `recall`,
    `f1-score` and `support`. A class that is neither a truth nor a prediction has no scores, NaN,
    and is no part of the averages.
    """
    occurring = np.union1d(labels, predicted)
    report = metrics.classification_report(
        labels, predicted, labels=occurring, output_dict=True, zero_division=0
    )
    nowhere = {**dict.fromkeys(("precision", "recall", "f1-score"), np.nan), "support": 0}
    rows = [
        {"class": name, "label": str(label), **report.pop(str(label), nowhere)}
        for label, name in enumerate(class_names)
    ]
    for name, values in report.items():
        if name == "accuracy":  # one number, which stands in each column of its row
            values = {"precision": values, "recall": values, "f1-score": values,
                      "support": len(labels)}  # fmt: skip
        rows.append({"class": name, "label": "", **values})
    frame = pd.DataFrame(rows).set_index("class")
    return frame.astype({"support": int})


@_without_warnings()
def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns counts `[classes, classes]`, rows the truth and columns the prediction."""
    return metrics.confusion_matrix(labels, predicted, labels=np.arange(num_classes))
