import numpy as np
import pytest
from sklearn import metrics

from flowers_tpu.evaluation import intervals
from flowers_tpu.evaluation.predictions import usual_confidence


def test_macro_f1_is_scikit_learns():
    generator = np.random.default_rng(0)
    for count in (1, 5, 300):
        labels, predicted = generator.integers(0, 12, (2, count))
        wanted = metrics.f1_score(labels, predicted, average="macro")
        assert intervals.macro_f1(labels, predicted) == pytest.approx(wanted, abs=1e-12)


def test_the_interval_of_an_accuracy_is_that_of_the_binomial_distribution():
    labels = np.zeros(1000, int)
    predicted = (np.arange(1000) < 200).astype(int)
    low, high = intervals.accuracy_interval(labels, predicted)
    # 0.8 ± 1.96 · √(0.8 · 0.2 / 1000)
    assert (low, high) == pytest.approx((0.7752, 0.8248), abs=0.004)
    assert intervals.accuracy_interval(labels, predicted) == (low, high)


def test_the_interval_of_a_macro_f1_holds_it():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 500)
    predicted = np.where(generator.random(500) < 0.9, labels, (labels + 1) % 5)
    low, high = intervals.macro_f1_interval(labels, predicted)
    assert low < intervals.macro_f1(labels, predicted) < high and high - low < 0.07


def test_the_usual_confidence():
    confidence = np.arange(1, 101) / 100
    assert usual_confidence(confidence) == 0.05
    assert (confidence >= usual_confidence(confidence)).mean() >= 0.95
    assert usual_confidence(np.array([0.5])) == 0.5
