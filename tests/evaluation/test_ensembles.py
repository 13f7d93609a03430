"""Averages against NumPy, fitted weights against a grid, and no photo fitted and scored at once."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from flowers_tpu.evaluation import ensembles


@pytest.fixture(scope="module")
def models():
    """Logits `[3, 120, 4]` of models that know much, some and little."""
    generator = np.random.default_rng(5)
    labels = np.arange(120) % 4
    truth = np.eye(4)[labels]
    know = np.array([1.6, 1.3, 0.3])[:, np.newaxis, np.newaxis]
    return (know * truth + generator.normal(size=(3, 120, 4))).astype(np.float32), labels


def test_probabilities_are_averaged_not_logits(models):
    logits, _ = models
    expected = (
        0.5 * softmax(logits[0], 1) + 0.3 * softmax(logits[1], 1) + 0.2 * softmax(logits[2], 1)
    )
    found = ensembles.average(logits, np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(found, np.log(expected), rtol=1e-5)


def test_a_probability_of_zero_stays_finite():
    logits = np.array([[[0.0, 1e4]], [[0.0, 1e4]]])
    assert np.isfinite(ensembles.average(logits, np.array([0.5, 0.5]))).all()
    assert np.isfinite(ensembles.fit(logits, np.array([0]))).all()


def test_fitted_weights_have_the_lowest_loss_of_a_grid(models):
    logits, labels = models

    def loss(weights):
        return log_loss(labels, np.einsum("m,mec->ec", weights, softmax(logits.astype(float), 2)))

    steps = np.linspace(0, 1, 51)
    grid = {
        (a, b): loss(np.array([a, b, 1 - a - b])) for a in steps for b in steps if a + b <= 1 + 1e-9
    }
    weights = ensembles.fit(logits, labels)
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    assert weights.max() < 0.9, "or else there is little to fit"
    np.testing.assert_allclose(weights[:2], min(grid, key=grid.get), atol=0.02)
    assert loss(weights) <= min(grid.values()) + 1e-6


def test_a_photo_is_scored_by_weights_fitted_without_it(models):
    logits, labels = models
    photos = np.arange(120)
    before = ensembles.cross_fit(logits, labels, photos)
    fold = ensembles.folds(labels, photos)
    for number in range(ensembles.FOLDS):
        here = fold == number
        weights = ensembles.fit(logits[:, ~here], labels[~here])
        np.testing.assert_allclose(before.log_p[here], ensembles.average(logits[:, here], weights))
    # Other labels of a fold change the weights of all others, but not those of its own photos.
    wrong = np.where(fold == 0, (labels + 1) % 4, labels)
    weights = ensembles.fit(logits[:, fold != 0], wrong[fold != 0])
    np.testing.assert_allclose(
        before.log_p[fold == 0], ensembles.average(logits[:, fold == 0], weights)
    )
    assert np.abs(ensembles.fit(logits, wrong) - before.weights).max() > 0.01


def test_folds_are_even_by_class_and_keep_equal_photos_together():
    labels = np.repeat([0, 1, 2], [50, 25, 3])
    fold = ensembles.folds(labels, np.arange(78))
    assert [np.bincount(fold[labels == c], minlength=5).tolist() for c in (0, 1)] == [
        [10] * 5,
        [5] * 5,
    ]
    assert np.ptp(np.bincount(fold)) <= 1
    twice = ensembles.folds(np.tile(labels, 2), np.tile(np.arange(78), 2))
    np.testing.assert_array_equal(twice[:78], twice[78:])
