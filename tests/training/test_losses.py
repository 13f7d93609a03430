import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

from flowers_tpu.training import losses

LABELS = np.int32([0, 3, 2, 2, 1])
LOGITS = np.random.default_rng(0).normal(scale=3, size=(5, 4)).astype(np.float32)


def test_cross_entropy_worked_out_by_hand():
    logits = np.log([[1.0, 3.0], [1.0, 3.0]])  # probabilities 1/4 and 3/4
    result = losses.cross_entropy(tf.constant(logits), tf.constant([0, 1]))
    np.testing.assert_allclose(result, np.log([4, 4 / 3]), rtol=1e-6)


def test_smoothing_worked_out_by_hand():
    logits = np.log([[1.0, 3.0], [1.0, 3.0]])
    result = losses.cross_entropy(tf.constant(logits), tf.constant([0, 1]), label_smoothing=0.2)
    # 0.9 of a label is the class's own, 0.1 the other's.
    expected = [
        0.9 * np.log(4) + 0.1 * np.log(4 / 3),
        0.1 * np.log(4) + 0.9 * np.log(4 / 3),
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_cross_entropy_is_scikit_learns():
    result = losses.cross_entropy(tf.constant(LOGITS), tf.constant(LABELS))
    assert result.shape == (5,)
    probabilities = np.exp(LOGITS.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = log_loss(LABELS, probabilities, labels=range(4))
    assert np.mean(result) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothing_is_kerass(smoothing):
    result = losses.cross_entropy(tf.constant(LOGITS), tf.constant(LABELS), smoothing)
    expected = tf.keras.losses.categorical_crossentropy(
        np.eye(4, dtype=np.float32)[LABELS], LOGITS, from_logits=True, label_smoothing=smoothing
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_logits_give_float32_losses(smoothing):
    rounded = tf.cast(LOGITS, tf.bfloat16)
    result = losses.cross_entropy(rounded, tf.constant(LABELS), smoothing)
    assert result.dtype == tf.float32
    exact = losses.cross_entropy(tf.cast(rounded, tf.float32), tf.constant(LABELS), smoothing)
    np.testing.assert_array_equal(result, exact)


def test_large_logits_neither_overflow_nor_vanish():
    logits = tf.constant([[1e4, 0.0, -1e4]] * 2)
    np.testing.assert_allclose(losses.cross_entropy(logits, tf.constant([0, 2])), [0, 2e4])


def test_only_kernels_are_penalized():
    dense = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    bias = tf.Variable([100.0, 100.0])
    convolution = tf.Variable(tf.fill([1, 1, 2, 1], 5.0))
    # 1 + 4 + 9 + 16 + 25 + 25
    assert losses.l2_penalty([dense, bias, convolution], 0.5).numpy() == 40


def test_balanced_weights_worked_out_by_hand():
    weights = losses.balanced_class_weights(np.int32([0, 0, 0, 2]), 4)
    assert weights.dtype == np.float32
    # 4 examples of 2 classes: 4 / (2 * 3) and 4 / (2 * 1); the others do not occur.
    np.testing.assert_allclose(weights, [2 / 3, 1, 2, 1], rtol=1e-6)


def test_balanced_weights_are_scikit_learns():
    labels = np.random.default_rng(0).integers(0, 9, 200) ** 2 // 9
    weights = losses.balanced_class_weights(labels, 104)[labels]
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", labels), rtol=1e-6)
    assert weights.mean() == pytest.approx(1, rel=1e-6)
