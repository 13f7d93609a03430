"""One number that makes a model as sure as it is right: logits are divided by it.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The
class that is predicted stays the same.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

from flowers_tpu.evaluation import ensembles
from flowers_tpu.evaluation.scores import log_probabilities

_RANGE = (0.01, 100.0)


class Fitted(NamedTuple):
    """A temperature, and what such temperatures come to on photos they were not fitted on.

    Attributes:
        temperature: fitted on all photos.
        of_each: `[examples]`, the temperatures that were fitted without the photo.
    """

    temperature: float
    of_each: np.ndarray


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature of the lowest mean cross-entropy, within 0.01 to 100.

    Args:
        logits: `[examples, classes]`.
        labels: `[examples]` int.
    """
    found = optimize.minimize_scalar(
        lambda log_t: loss(logits, labels, np.exp(log_t)),
        bounds=np.log(_RANGE),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.exp(found.x))


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
    """Returns the mean cross-entropy of logits divided by a temperature, or by one for each."""
    divided = logits / np.reshape(temperature, (-1, 1))
    return float(-log_probabilities(divided)[np.arange(len(labels)), labels].mean())


def cross_fit(logits: np.ndarray, labels: np.ndarray, fingerprints: np.ndarray) -> Fitted:
    """Fits a temperature on all photos, and five on four fifths to know what it is worth.

    Args:
        logits: `[examples, classes]`.
        labels: `[examples]` int.
        fingerprints: `[examples]`; see `ensembles.folds`. Two different ones, at least.
    """
    fold = ensembles.folds(labels, fingerprints)
    of_each = np.empty(len(labels))
    for number in np.unique(fold):
        here = fold == number
        of_each[here] = fit(logits[~here], labels[~here])
    return Fitted(fit(logits, labels), of_each)


def confidences(logits: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Returns the calibrated probability of each predicted class, `[examples]` float64."""
    return np.exp(log_probabilities(logits / np.reshape(temperature, (-1, 1)))).max(axis=1)
