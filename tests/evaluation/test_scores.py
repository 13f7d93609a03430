import warnings

import numpy as np
import pytest
from sklearn.metrics import log_loss

from flowers_tpu.evaluation import intervals, scores
from flowers_tpu.training import metrics

# Of the classes a to g, the photos show a, b and c; f is predicted once, d, e and g never occur.
LABELS = np.int32([0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 5])
NAMES = ("a", "b", "c", "d", "e", "f", "g")


def logits_for(predicted, num_classes=7):
    logits = np.full((len(predicted), num_classes), -1, np.float32)
    logits[np.arange(len(predicted)), predicted] = 1
    return logits


def test_scores_worked_out_by_hand():
    result = scores.score(LABELS, logits_for(PREDICTED))
    right, wrong = np.log(1 + 6 * np.exp(-2)), np.log(1 + 6 * np.exp(-2)) + 2
    assert (result.pop("macro_f1_low"), result.pop("macro_f1_high")) == (
        intervals.macro_f1_interval(LABELS, PREDICTED)
    )
    assert result == {
        "examples": 5,
        "loss": pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-9),
        "accuracy": 0.6,
        "top5_accuracy": 1,
        # a: precision 1, recall 1/2; b: 2/3, 1; c: 0, 0; f: 0, 0.
        "macro_precision": pytest.approx((1 + 2 / 3) / 4, rel=1e-12),
        "macro_recall": pytest.approx((1 / 2 + 1) / 4, rel=1e-12),
        "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 4, rel=1e-12),
    }
    assert {type(value) for value in result.values()} == {int, float}  # JSON takes no others


@pytest.mark.parametrize(("label", "expected"), [(0, 1), (4, 1), (5, 0), (6, 0)])
def test_top_five(label, expected):
    logits = np.float32([[7, 6, 5, 4, 3, 2, 1]])
    assert scores.score(np.array([label]), logits)["top5_accuracy"] == expected


def test_with_fewer_than_five_classes_every_label_is_in_the_top_five():
    assert scores.score(np.array([2]), np.float32([[3, 2, 1]]))["top5_accuracy"] == 1


def test_logits_that_are_not_numbers_are_never_right():
    result = scores.score(np.array([1, 6]), np.full((2, 7), np.nan, np.float32))
    assert result["top5_accuracy"] == 0
    assert result["accuracy"] == 0


def test_scores_agree_with_those_of_training():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 80, 300)
    logits = generator.normal(size=(300, 104)).astype(np.float32)
    logits[np.arange(300), labels] += 2
    matrix = scores.confusion_matrix(labels, logits.argmax(axis=1), 104)
    result = scores.score(labels, logits)
    assert result["macro_f1"] == pytest.approx(metrics.macro_f1(matrix), rel=1e-12)
    probabilities = np.exp(scores.log_probabilities(logits))
    assert result["loss"] == pytest.approx(
        log_loss(labels, probabilities, labels=range(104)), rel=1e-9
    )


def test_log_probabilities():
    result = scores.log_probabilities(np.float32([[0, np.log(3)], [1e4, 0], [-1e4, -1e4]]))
    assert result.dtype == np.float64
    np.testing.assert_allclose(
        result, [np.log([1 / 4, 3 / 4]), [0, -1e4], np.log([0.5, 0.5])], rtol=1e-6
    )


def test_the_confusion_matrix_has_the_truth_in_rows():
    expected = np.zeros((7, 7), int)
    expected[0, 0] = expected[0, 1] = expected[2, 5] = 1
    expected[1, 1] = 2
    np.testing.assert_array_equal(scores.confusion_matrix(LABELS, PREDICTED, 7), expected)


def test_the_report_has_a_row_for_each_class():
    report = scores.classification_report(LABELS, PREDICTED, NAMES)
    assert list(report.columns) == ["label", "precision", "recall", "f1-score", "support"]
    assert report.index.name == "class"
    averages = ["accuracy", "macro avg", "weighted avg"]
    assert list(report.index) == [*NAMES, *averages]
    assert list(report["label"]) == ["0", "1", "2", "3", "4", "5", "6", "", "", ""]
    assert list(report["support"]) == [2, 2, 1, 0, 0, 0, 0, 5, 5, 5]
    nowhere = [float("nan")] * 3
    columns = ["precision", "recall", "f1-score"]
    np.testing.assert_allclose(
        report[columns].to_numpy(),
        [
            [1, 1 / 2, 2 / 3],
            [2 / 3, 1, 4 / 5],
            [0, 0, 0],
            nowhere,
            nowhere,
            [0, 0, 0],
            nowhere,
            [0.6, 0.6, 0.6],
            [5 / 12, 3 / 8, 11 / 30],
            [2 / 3, 3 / 5, (2 * 2 / 3 + 2 * 4 / 5) / 5],
        ],
    )


def test_what_scikit_learn_warns_of_is_not_shown(recwarn, monkeypatch):
    """Some of its versions take many classes of few photos for a regression, and say so."""
    real = scores.metrics.f1_score

    def warning(*arguments, **options):
        warnings.warn("The number of unique classes is greater than 50% of …", stacklevel=2)
        return real(*arguments, **options)

    monkeypatch.setattr(scores.metrics, "f1_score", warning)
    labels, logits = np.arange(30), np.eye(30, dtype=np.float32)
    assert scores.score(labels, logits)["macro_f1"] == 1
    scores.classification_report(labels, labels, tuple(map(str, labels)))
    scores.confusion_matrix(labels, labels, 30)
    assert [str(warning.message) for warning in recwarn] == []
