import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.evaluation import predictions

IDS = np.array(["x1", "x2", "x3"])
NAMES = ("rose", "iris", "lotus")
LOGITS = np.log(np.float32([[1, 2, 1], [6, 3, 1], [1, 1, 98]]))  # probabilities / 4, 10, 100
LABELS = np.int32([1, 1, 2])


def test_a_row_for_each_labeled_photo():
    expected = pd.DataFrame(
        {
            "id": ["x1", "x2", "x3"],
            "label": LABELS,
            "name": ["iris", "iris", "lotus"],
            "predicted_label": [1, 0, 2],
            "predicted_name": ["iris", "rose", "lotus"],
            "confidence": [0.5, 0.6, 0.98],
            "loss": -np.log([0.5, 0.3, 0.98]),
        }
    )
    table = predictions.table(IDS, LOGITS, LABELS, NAMES)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=1e-6)


def test_unlabeled_photos_have_neither_truth_nor_loss():
    table = predictions.table(IDS, LOGITS, None, NAMES)
    assert list(table) == ["id", "predicted_label", "predicted_name", "confidence"]
    assert list(table["predicted_label"]) == [1, 0, 2]


def predict_step(iterator):
    return tf.constant(next(iterator))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_the_logits_of_the_filling_are_dropped(count):
    logits = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    iterator = iter([logits[:4], logits[4:]])
    result = np.concatenate(list(predictions.predict(predict_step, iterator, count)))
    np.testing.assert_array_equal(result, logits[:count])
    assert len(list(iterator)) == (count <= 4)  # no batch more than needed


def test_who_stops_between_two_batches_has_had_no_more_of_them():
    batches = iter([LOGITS] * 5)
    of_batches = predictions.predict(predict_step, batches, 15)
    np.testing.assert_array_equal(next(of_batches), LOGITS)
    of_batches.close()
    assert len(list(batches)) == 4
