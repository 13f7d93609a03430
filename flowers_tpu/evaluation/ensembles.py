"""Probabilities of several models averaged, with equal weights or with fitted ones.

Fitted weights are those of the mixture with the lowest loss, which is convex in them, found by
expectation maximization: Smyth, Wolpert: Linearly Combining Density Estimators via Stacking, 1999,
https://doi.org/10.1023/A:1007511322260.
"""

from typing import NamedTuple

import numpy as np

from flowers_tpu.evaluation.scores import log_probabilities

FOLDS = 5  # of the cross-validation
_MOST_ROUNDS = 2000
_TOLERANCE = 1e-9
_TINY = np.finfo(np.float64).tiny


class Fitted(NamedTuple):
    """Weights fitted on photos, and what such weights come to on photos they were not fitted on.

    Attributes:
        weights: `[members]`, fitted on all photos; they sum to 1.
        log_p: `[examples, classes]`, logarithms of the averaged probabilities, those of each photo
            by weights that were fitted without it.
    """

    weights: np.ndarray
    log_p: np.ndarray


def average(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the weighted mean of probabilities, `[examples, classes]` float64.

    Args:
        logits: `[members, examples, classes]`.
        weights: `[members]`, which sum to 1.
    """
    probabilities = sum(
        weight * np.exp(log_probabilities(of_one))
        for weight, of_one in zip(weights, logits, strict=True)
    )
    return np.log(np.maximum(probabilities, _TINY))


def fit(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the weights of the lowest mean cross-entropy, `[members]`, which sum to 1.

    Args:
        logits: `[members, examples, classes]`.
        labels: `[examples]` int.
    """
    own = np.stack(
        [np.exp(log_probabilities(of_one)[np.arange(len(labels)), labels]) for of_one in logits]
    )
    own = np.maximum(own, _TINY)
    weights = np.full(len(own), 1 / len(own))
    for _ in range(_MOST_ROUNDS):
        shares = weights[:, np.newaxis] * own
        after = (shares / shares.sum(axis=0)).mean(axis=1)
        moved = np.abs(after - weights).max()
        weights = after
        if moved < _TOLERANCE:
            break
    return weights / weights.sum()


def folds(labels: np.ndarray, fingerprints: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns the fold of each photo, `[examples]` in 0 to `FOLDS` - 1.

    Every class is spread evenly, and equal photos are in one fold.

    Args:
        labels: `[examples]` int.
        fingerprints: `[examples]`; photos of equal ones are in one fold.
        seed: of the order within a class.
    """
    _, first, photo = np.unique(fingerprints, return_index=True, return_inverse=True)
    chance = np.random.default_rng(seed).random(len(first))
    order = np.lexsort((chance, labels[first]))
    fold = np.empty(len(first), int)
    fold[order] = np.arange(len(first)) % FOLDS
    return fold[photo]


def cross_fit(logits: np.ndarray, labels: np.ndarray, fingerprints: np.ndarray) -> Fitted:
    """Fits weights on all photos, and five times on four fifths to know what they are worth.

    Args:
        logits: `[members, examples, classes]`.
        labels: `[examples]` int.
        fingerprints: `[examples]`; see `folds`. Two different ones, at least.
    """
    fold = folds(labels, fingerprints)
    log_p = np.empty(logits.shape[1:])
    for number in np.unique(fold):
        here = fold == number
        weights = fit(logits[:, ~here], labels[~here])
        log_p[here] = average(logits[:, here], weights)
    return Fitted(fit(logits, labels), log_p)
