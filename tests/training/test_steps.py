import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from flowers_tpu.models.classifier import build_classifier
from flowers_tpu.training import losses, metrics, optimizers, steps
from tests.photos import batch, distributed, linear_classifier

CLASSES = 7
SEED = tf.constant([0, 5], tf.int32)


def run(strategy, function, *args):
    outputs = tf.function(lambda *a: strategy.run(function, args=a))(*args)
    return tf.nest.map_structure(strategy.experimental_local_results, outputs)


def columns(outcomes):
    """Those of the examples that count, of all replicas."""
    rows = np.concatenate(outcomes)
    rows = rows[rows[:, metrics.COLUMNS.index("weight")] > 0]
    return dict(zip(metrics.COLUMNS, rows.T, strict=True))


def by_hand(classifier, data, *, smoothing=0.0, class_weights=None, l2=0.0, clip_norm=0.0):
    """Loss, gradients and norm of softmax regression on the global batch, in NumPy."""
    kernel, bias = (v.numpy().astype(np.float64) for v in classifier.head.trainable_variables)
    x = data["image"].reshape(len(data["label"]), -1) / 255
    logits = x @ kernel + bias
    targets = np.eye(CLASSES)[data["label"]] * (1 - smoothing) + smoothing / CLASSES
    factors = np.ones(CLASSES) if class_weights is None else class_weights
    weight = data["weight"] * factors[data["label"]]
    each = -(targets * log_softmax(logits, axis=1)).sum(axis=1)
    delta = (softmax(logits, axis=1) - targets) * (weight / data["weight"].sum())[:, np.newaxis]
    gradients = [x.T @ delta + 2 * l2 * kernel, delta.sum(axis=0)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    if clip_norm:
        gradients = [g * min(1, clip_norm / norm) for g in gradients]
    return (weight * each).sum(), gradients, norm, logits


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"smoothing": 0.1},
        {"class_weights": np.linspace(0.5, 2, CLASSES)},
        {"l2": 0.3},
        {"clip_norm": 0.05},
        {"smoothing": 0.2, "class_weights": np.linspace(3, 1, CLASSES), "l2": 0.1, "clip_norm": 1},
    ],
)
@pytest.mark.parametrize("stage", [steps.warmup_gradients, steps.finetune_gradients])
def test_gradients_are_those_of_the_global_batch(make_strategy, replicas, options, stage):
    strategy = make_strategy(replicas)
    # The last three are padding, so with 4 replicas one replica has nothing but padding.
    data = batch(8, CLASSES, weights=[1, 1, 1, 1, 1, 0, 0, 0])
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    class_weights = options.get("class_weights")
    objective = steps.Objective(
        label_smoothing=options.get("smoothing", 0),
        class_weights=None if class_weights is None else np.float32(class_weights),
        l2=options.get("l2", 0),
        clip_norm=options.get("clip_norm", 0),
    )
    gradients, results = run(
        strategy, lambda b: stage(classifier, b, SEED, objective), distributed(strategy, data)
    )
    loss, expected, norm, logits = by_hand(classifier, data, **options)

    for replica in range(replicas):
        for gradient, reference in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient[replica], reference, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(results["gradient_norm"][replica], norm, rtol=1e-5)
        assert results["finite"][replica]
    outcomes = columns(results["outcomes"])
    np.testing.assert_allclose(outcomes["loss"].sum(), loss, rtol=1e-6)
    np.testing.assert_array_equal(outcomes["label"], data["label"][:5])
    np.testing.assert_array_equal(outcomes["predicted"], logits.argmax(axis=1)[:5])


def test_warmup_leaves_the_backbone_alone_and_finetuning_does_not(make_strategy):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = build_classifier(
            backbone="small_cnn", num_classes=3, image_size=32, weights="none", dropout=0.5
        )
    data = distributed(strategy, batch(4, 3, side=32))
    before = [v.numpy() for v in classifier.features.variables]
    gradients, _ = run(
        strategy, lambda b: steps.warmup_gradients(classifier, b, SEED, steps.Objective()), data
    )
    assert [g[0].shape for g in gradients] == [v.shape for v in classifier.head.variables]
    for variable, value in zip(classifier.features.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

    gradients, _ = run(
        strategy, lambda b: steps.finetune_gradients(classifier, b, SEED, steps.Objective()), data
    )
    assert len(gradients) == len(classifier.model.trainable_variables)
    moved = [
        not np.array_equal(variable, value)
        for variable, value in zip(classifier.features.variables, before, strict=True)
    ]
    assert sum(moved) == len(before) - len(classifier.features.trainable_variables)


def test_moving_statistics_are_the_mean_over_the_replicas(make_strategy):
    def statistics(strategy, data):
        with strategy.scope():
            classifier = build_classifier(
                backbone="small_cnn", num_classes=3, image_size=32, weights="none"
            )
        run(
            strategy,
            lambda b: steps.finetune_gradients(classifier, b, SEED, steps.Objective()),
            distributed(strategy, data),
        )
        variables = steps.batch_norm_statistics(classifier.model)
        return [[v.numpy() for v in strategy.experimental_local_results(x)] for x in variables]

    data = batch(8, 3, side=32)
    halves = [{n: a[half] for n, a in data.items()} for half in (slice(0, 4), slice(4, 8))]
    on_two = statistics(make_strategy(2), data)
    alone = [statistics(make_strategy(1), half) for half in halves]
    for (first, second), (a,), (b,) in zip(on_two, *alone, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_gradients_that_are_not_finite_are_told_and_leave_the_statistics(make_strategy):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = build_classifier(
            backbone="small_cnn", num_classes=3, image_size=32, weights="none"
        )
    classifier.head.trainable_variables[1].assign([np.inf, 0, 0])
    before = [v.numpy() for v in steps.batch_norm_statistics(classifier.model)]
    _, results = run(
        strategy,
        lambda b: steps.finetune_gradients(classifier, b, SEED, steps.Objective()),
        distributed(strategy, batch(4, 3, side=32)),
    )
    assert not any(results["finite"])
    for variable, value in zip(steps.batch_norm_statistics(classifier.model), before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.core
def test_a_loss_that_is_not_finite_is_told_by_every_replica(make_strategy):
    """Whose gradients are finite: those of the logits are probabilities less the label's 1."""
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    classifier.head.trainable_variables[1].assign([3e38, -3e38, *[0.0] * (CLASSES - 2)])
    data = batch(4, CLASSES)
    data["label"][:] = [0, 0, 0, 1]  # the likely class, and at last one that is impossible
    _, results = run(
        strategy,
        lambda b: steps.warmup_gradients(classifier, b, SEED, steps.Objective()),
        distributed(strategy, data),
    )
    assert np.isfinite(results["gradient_norm"]).all()
    np.testing.assert_array_equal(np.isinf(columns(results["outcomes"])["loss"]), [0, 0, 0, 1])
    assert not any(results["finite"])


OPTIMIZERS = ("sgd", "adam", "adamw", "lamb", "radam", "novograd")


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        *(pytest.param(name, "linear", marks=pytest.mark.core) for name in OPTIMIZERS),
        ("adam", "small_cnn"),
    ],
)
def test_the_replica_count_makes_no_difference(make_strategy, name, backbone):
    """Three whole steps, dropout and clipping included, on 1, 2, 4 and 8 replicas."""
    class_weights = np.linspace(0.5, 2, CLASSES).astype(np.float32)
    objective = steps.Objective(0.1, class_weights, l2=1e-3, clip_norm=0.5)
    results = {}
    for replicas in (1, 2, 4, 8):
        strategy = make_strategy(replicas)
        with strategy.scope():
            # Batch normalization is per replica by nature; here it is frozen.
            classifier = (
                linear_classifier(CLASSES, size=32)
                if backbone == "linear"
                else build_classifier(
                    backbone=backbone,
                    num_classes=CLASSES,
                    image_size=32,
                    weights="none",
                    batch_norm="frozen",
                    dropout=0.4,
                )
            )
            variables = classifier.model.trainable_variables
            optimizer = optimizers.make_optimizer(
                name,
                lambda: tf.constant(0.01),
                variables,
                weight_decay=0 if name in ("sgd", "adam") else 0.1,
            )

        def train_step(data, seed, classifier=classifier, optimizer=optimizer, v=variables):
            gradients, results = steps.finetune_gradients(classifier, data, seed, objective)
            steps.apply_gradients(optimizer, gradients, v)
            return results["outcomes"]

        step = tf.function(lambda b, s, st=strategy, f=train_step: st.run(f, args=(b, s)))
        losses_seen = []
        for number in range(3):
            weights = [1] * 16 if number < 2 else [1] * 11 + [0] * 5
            data = batch(16, CLASSES, side=32, seed=number, weights=weights)
            outcomes = step(distributed(strategy, data), tf.constant([3, number], tf.int32))
            outcomes = columns(strategy.experimental_local_results(outcomes))
            losses_seen.append(outcomes["loss"].sum())
        slots = [v.numpy() for v in optimizer.variables()]
        results[replicas] = [np.array(losses_seen), *slots, *(v.numpy() for v in variables)]

    for replicas in (2, 4, 8):
        for a, b in zip(results[1], results[replicas], strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_eval_and_predict_step(make_strategy, replicas):
    strategy = make_strategy(replicas)
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    data = batch(8, CLASSES, weights=[1] * 7 + [0])
    values = distributed(strategy, data)
    outcomes = columns(run(strategy, lambda b: steps.eval_step(classifier.model, b), values))
    logits = run(strategy, lambda b: steps.predict_step(classifier.model, b), values)
    loss, _, _, expected = by_hand(classifier, data)
    np.testing.assert_allclose(np.concatenate(logits), expected, rtol=1e-5, atol=1e-6)
    five = np.argsort(-expected, axis=1)[:, :5]
    hits = (five == data["label"][:, np.newaxis]).any(axis=1)[:7]
    np.testing.assert_allclose(outcomes["loss"].sum(), loss, rtol=1e-5)
    np.testing.assert_array_equal(outcomes["label"], data["label"][:7])
    np.testing.assert_array_equal(outcomes["predicted"], expected.argmax(axis=1)[:7])
    np.testing.assert_array_equal(outcomes["top5"], hits)


def test_l2_leaves_biases_out():
    kernel, bias = tf.Variable([[1.0, 2.0]]), tf.Variable([100.0])
    assert float(losses.l2_penalty([kernel, bias], 0.1)) == pytest.approx(0.5)
