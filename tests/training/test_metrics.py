import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, top_k_accuracy_score

from flowers_tpu.training import metrics

pytestmark = pytest.mark.core


def random_batch(examples, num_classes, occurring=None, seed=0):
    """Logits, labels and losses; labels are below `occurring`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(examples, num_classes)).astype(np.float32)
    labels = generator.integers(0, occurring or num_classes, examples, dtype=np.int32)
    logits[np.arange(examples), labels] += 1
    return logits, labels, generator.uniform(0, 3, examples).astype(np.float32)


def sums_of(logits, labels, weights, losses, before=None):
    rows = metrics.outcomes(*(tf.constant(value) for value in (logits, labels, weights, losses)))
    assert rows.dtype == tf.float32
    sums = metrics.added(before or metrics.empty(logits.shape[1]), rows.numpy())
    assert {value.dtype for value in sums.values()} == {np.dtype(np.float64)}
    return sums


def check(sums, logits, labels, losses):
    """Compares with scikit-learn's scores of the examples that count."""
    num_classes = logits.shape[1]
    predicted = logits.argmax(axis=1)
    scores = metrics.scores(sums)
    np.testing.assert_array_equal(
        sums["confusion"], confusion_matrix(labels, predicted, labels=range(num_classes))
    )
    assert scores["loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted), rel=1e-12)
    assert scores["macro_f1"] == pytest.approx(
        f1_score(labels, predicted, average="macro"), rel=1e-12
    )
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes))
    assert scores["top5_accuracy"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("examples", "num_classes", "occurring"),
    [(500, 104, 104), (60, 104, 80), (200, 6, 6), (40, 12, 2)],
)
def test_scores_are_scikit_learns(examples, num_classes, occurring):
    logits, labels, losses = random_batch(examples, num_classes, occurring)
    weights = np.ones(examples, np.float32)
    check(sums_of(logits, labels, weights, losses), logits, labels, losses)


def test_examples_of_weight_0_do_not_count():
    logits, labels, losses = random_batch(50, 8)
    weights = np.float32(np.arange(50) % 3 > 0)
    kept = weights > 0
    check(sums_of(logits, labels, weights, losses), logits[kept], labels[kept], losses[kept])


def test_sums_of_batches_add_up_to_those_of_the_split():
    logits, labels, losses = random_batch(100, 20)
    total = metrics.empty(20)
    for begin, end in ((0, 1), (1, 40), (40, 100)):
        part = slice(begin, end)
        weights = np.ones(end - begin, np.float32)
        total = sums_of(logits[part], labels[part], weights, losses[part], before=total)
    check(total, logits, labels, losses)
    whole = sums_of(logits, labels, np.ones(100, np.float32), losses)
    for name in whole:  # to the last bit
        np.testing.assert_array_equal(total[name], whole[name])


def test_losses_are_added_one_after_the_other():
    logits, labels, _ = random_batch(3, 6)
    losses = np.float32([1, 2**-53, 2**-53])  # half of the last bit of 1; together they would count
    for ends in ([3], [1, 3]):
        sums, begin = metrics.empty(6), 0
        for end in ends:
            part, weights = slice(begin, end), np.ones(end - begin, np.float32)
            sums = sums_of(logits[part], labels[part], weights, losses[part], before=sums)
            begin = end
        assert sums["loss"] == 1


def test_adding_leaves_the_sums_as_they_were():
    before = metrics.empty(6)
    logits, labels, losses = random_batch(4, 6)
    sums_of(logits, labels, np.ones(4, np.float32), losses, before)
    assert not any(value.any() for value in before.values())


def test_compiled_by_xla_outcomes_are_the_same():
    logits, labels, losses = random_batch(50, 12)
    logits[0, labels[0]] = np.nan
    values = [tf.constant(value) for value in (logits, labels, np.ones(50, np.float32), losses)]
    compiled = tf.function(metrics.outcomes, jit_compile=True)(*values)
    np.testing.assert_array_equal(compiled[:, 2:], metrics.outcomes(*values)[:, 2:])
    np.testing.assert_array_equal(compiled[1:], metrics.outcomes(*values)[1:])


def test_a_batch_of_nothing_but_padding_adds_nothing():
    logits, labels, losses = random_batch(4, 6)
    for name, value in sums_of(logits, labels, np.zeros(4, np.float32), losses).items():
        np.testing.assert_array_equal(value, metrics.empty(6)[name])


def test_with_fewer_than_five_classes_every_label_is_in_the_top_five():
    logits, labels, losses = random_batch(30, 3)
    sums = sums_of(logits, labels, np.ones(30, np.float32), losses)
    assert metrics.scores(sums)["top5_accuracy"] == 1
    assert metrics.scores(sums)["accuracy"] < 1


@pytest.mark.parametrize(("label", "expected"), [(0, 1), (4, 1), (5, 0), (6, 0)])
def test_top_five_worked_out_by_hand(label, expected):
    logits = np.float32([[7, 6, 5, 4, 3, 2, 1]])
    sums = sums_of(logits, np.int32([label]), np.float32([1]), np.float32([0]))
    assert sums["top5"] == expected


def test_logits_that_are_not_numbers_are_never_right():
    logits = np.full((2, 7), np.nan, np.float32)
    sums = sums_of(logits, np.int32([1, 6]), np.ones(2, np.float32), np.zeros(2, np.float32))
    assert sums["top5"] == 0
    assert np.trace(sums["confusion"]) == 0


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        # Precision and recall 1/2 each; 1 and 1.
        ([[1, 1, 0], [1, 1, 0], [0, 0, 2]], (1 / 2 + 1 / 2 + 1) / 3),
        # Class 2 does not occur at all and is left out.
        ([[3, 1, 0], [0, 4, 0], [0, 0, 0]], (6 / 7 + 8 / 9) / 2),
        # Class 1 is only predicted, class 2 only true: both count with 0.
        ([[2, 1, 0], [0, 0, 0], [1, 0, 0]], (4 / 6) / 3),
    ],
)
def test_macro_f1_worked_out_by_hand(confusion, expected):
    assert metrics.macro_f1(np.float64(confusion)) == pytest.approx(expected, rel=1e-12)
