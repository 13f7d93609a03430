"""Evaluation through the real pipeline equals scikit-learn's, whatever size, batch and replicas."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as reference

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from flowers_tpu.data import pipeline  # noqa: E402
from flowers_tpu.data.splits import read_split  # noqa: E402
from flowers_tpu.evaluation import predictions, scores  # noqa: E402
from flowers_tpu.training import metrics, multistep  # noqa: E402
from tests.photos import linear_classifier, source_of, write_split  # noqa: E402

CLASSES, SIZE, MOST = 7, 8, 21


@functools.cache
def evaluator(replicas):
    """A strategy with its compiled functions, traced once for each batch size."""
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        model = linear_classifier(CLASSES, size=SIZE).model
    return (
        strategy,
        multistep.compile_eval_steps(strategy, model),
        multistep.compile_predict_step(strategy, model),
    )


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Gives a split of so many photos in so many shards; empty shards are among them."""

    @functools.cache
    def split(size, shards):
        folder = tmp_path_factory.mktemp("split")
        write_split(folder, "val", size, size=SIZE, num_classes=CLASSES, shards=shards)
        return read_split(str(folder), "val", CLASSES)

    return split


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, MOST),
    local_batch=st.sampled_from([1, 2, 5]),
    replicas=st.sampled_from([1, 2, 4]),
    shards=st.integers(1, 3),
)
def test_every_example_counts_exactly_once(splits, size, local_batch, replicas, shards):
    split = splits(size, shards)
    strategy, eval_steps, predict_step = evaluator(replicas)
    batch = local_batch * replicas
    dataset = functools.partial(
        pipeline.eval_dataset,
        source_of(split),
        global_batch_size=batch,
        local_batch_size=local_batch,
    )
    distributed = pipeline.distribute(
        strategy, lambda w, n: dataset(worker=w, workers=n), fetches_ahead=False
    )
    outcomes = eval_steps(iter(distributed), tf.constant(pipeline.eval_steps(size, batch)))
    sums = metrics.added(metrics.empty(CLASSES), np.concatenate(outcomes))
    logits = np.concatenate(list(predictions.predict(predict_step, iter(distributed), size)))
    assert len(logits) == size and sums["confusion"].sum() == size

    predicted = logits.argmax(axis=1)
    expected = {
        "loss": reference.log_loss(
            split.labels, np.exp(scores.log_probabilities(logits)), labels=range(CLASSES)
        ),
        "accuracy": reference.accuracy_score(split.labels, predicted),
        "top5_accuracy": reference.top_k_accuracy_score(
            split.labels, logits, k=5, labels=range(CLASSES)
        ),
        "macro_f1": reference.f1_score(split.labels, predicted, average="macro", zero_division=0),
    }
    assert metrics.scores(sums) == pytest.approx(expected, rel=1e-5)
    assert metrics.scores(sums)["macro_f1"] == pytest.approx(expected["macro_f1"], rel=1e-12)
    assert {k: scores.score(split.labels, logits)[k] for k in expected} == pytest.approx(
        expected, rel=1e-6
    )
    np.testing.assert_array_equal(
        sums["confusion"],
        reference.confusion_matrix(split.labels, predicted, labels=range(CLASSES)),
    )
