"""Temperatures against those that made the labels, and no photo calibrated by its own."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from flowers_tpu.evaluation import ensembles, temperature


@pytest.fixture(scope="module")
def drawn():
    """Logits `[2000, 5]` and labels that are drawn from their softmax."""
    generator = np.random.default_rng(2)
    logits = generator.normal(scale=2, size=(2000, 5))
    return logits, np.array([generator.choice(5, p=row) for row in softmax(logits, 1)])


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(drawn, true):
    logits, labels = drawn
    assert temperature.fit(logits * true, labels) == pytest.approx(true, rel=0.08)


def test_no_other_temperature_has_a_lower_loss(drawn):
    logits, labels = drawn
    found = temperature.fit(3 * logits, labels)
    expected = log_loss(labels, softmax(3 * logits / found, 1))
    assert temperature.loss(3 * logits, labels, found) == pytest.approx(expected)
    for other in (0.5, 0.98, 1.02, 2):
        assert log_loss(labels, softmax(3 * logits / (found * other), 1)) > expected


def test_a_photo_is_calibrated_by_a_temperature_fitted_without_it(drawn):
    logits, labels = drawn[0][:60], drawn[1][:60]
    fitted = temperature.cross_fit(logits, labels, np.arange(60))
    fold = ensembles.folds(labels, np.arange(60))
    for number in range(ensembles.FOLDS):
        without = temperature.fit(logits[fold != number], labels[fold != number])
        np.testing.assert_allclose(fitted.of_each[fold == number], without)
    assert len(np.unique(fitted.of_each)) == ensembles.FOLDS
    assert fitted.temperature == temperature.fit(logits, labels)


def test_confidences_are_of_the_same_classes(drawn):
    logits, _ = drawn
    divisors = np.linspace(0.5, 4, len(logits))
    expected = softmax(logits / divisors[:, np.newaxis], 1)
    found = temperature.confidences(logits, divisors)
    np.testing.assert_allclose(found, expected[np.arange(len(logits)), logits.argmax(axis=1)])
