import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from flowers_tpu.models.classifier import batch_norm_statistics
from flowers_tpu.training import losses, metrics, optimizers, steps
from flowers_tpu.training.options import TrainingOptions
from tests.photos import batch, distributed, linear_classifier, small_classifier

CLASSES = 7
SEED = tf.constant([0, 5], tf.int32)


def objective_of(photos, *, class_weights=None, **options):
    return steps.Objective(TrainingOptions(**options), photos, class_weights)


def run(strategy, function, *args):
    outputs = tf.function(lambda *a: strategy.run(function, args=a))(*args)
    return tf.nest.map_structure(strategy.experimental_local_results, outputs)


def columns(outcomes):
    """Those of the examples that count, of all replicas."""
    rows = np.concatenate(outcomes)
    rows = rows[rows[:, metrics.COLUMNS.index("weight")] > 0]
    return dict(zip(metrics.COLUMNS, rows.T, strict=True))


def by_hand(classifier, data, *, label_smoothing=0.0, class_weights=None, l2=0.0, clip_norm=0.0):
    """Loss, gradients and norm of softmax regression on the global batch, in NumPy."""
    kernel, bias = (v.numpy().astype(np.float64) for v in classifier.head.trainable_variables)
    x = data["image"].reshape(len(data["label"]), -1) / 255
    logits = x @ kernel + bias
    smoothed = label_smoothing / CLASSES
    targets = np.eye(CLASSES)[data["label"]] * (1 - label_smoothing) + smoothed
    factors = np.ones(CLASSES) if class_weights is None else class_weights
    weight = data["weight"] * factors[data["label"]]
    each = -(targets * log_softmax(logits, axis=1)).sum(axis=1)
    delta = (softmax(logits, axis=1) - targets) * (weight / len(weight))[:, np.newaxis]
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
        {"label_smoothing": 0.1},
        {"class_weights": np.linspace(0.5, 2, CLASSES, dtype=np.float32)},
        {"l2": 0.3},
        {"clip_norm": 0.05},
        {
            **{"label_smoothing": 0.2, "l2": 0.1, "clip_norm": 1.0},
            "class_weights": np.linspace(3, 1, CLASSES, dtype=np.float32),
        },
    ],
)
@pytest.mark.parametrize("stage", [steps.warmup_gradients, steps.finetune_gradients])
def test_gradients_are_those_of_the_global_batch(make_strategy, replicas, options, stage):
    strategy = make_strategy(replicas)
    data = batch(8, CLASSES)
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    objective = objective_of(8, **options)
    gradients, results = run(
        strategy, lambda b: stage(classifier, b, SEED, objective), distributed(strategy, data)
    )
    loss, expected, norm, logits = by_hand(classifier, data, **options)

    for replica in range(replicas):
        for gradient, reference in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient[replica], reference, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(results.gradient_norm[replica], norm, rtol=1e-5)
        assert results.finite[replica]
    outcomes = columns(results.outcomes)
    np.testing.assert_allclose(outcomes["loss"].sum(), loss, rtol=1e-6)
    np.testing.assert_array_equal(outcomes["label"], data["label"])
    np.testing.assert_array_equal(outcomes["predicted"], logits.argmax(axis=1))


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_loss_of_mixed_photos_is_shared_between_their_labels(make_strategy, replicas):
    """With smoothing and class weights: both are the mean of those of the labels by the shares."""
    strategy = make_strategy(replicas)
    options = {
        "label_smoothing": 0.1,
        "class_weights": np.linspace(0.5, 2, CLASSES, dtype=np.float32),
    }
    data = batch(8, CLASSES)
    share = np.linspace(0.5, 1, 8, dtype=np.float32)
    other = (data["label"] + np.int32(3)) % np.int32(CLASSES)
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    gradients, results = run(
        strategy,
        lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(8, **options)),
        distributed(strategy, data | {"other": other, "share": share}),
    )
    first = by_hand(classifier, data | {"weight": share}, **options)
    second = by_hand(classifier, data | {"weight": 1 - share, "label": other}, **options)
    for gradient, a, b in zip(gradients, first[1], second[1], strict=True):
        np.testing.assert_allclose(gradient[0], a + b, rtol=1e-5, atol=1e-7)
    outcomes = columns(results.outcomes)
    np.testing.assert_allclose(outcomes["loss"].sum(), first[0] + second[0], rtol=1e-6)
    np.testing.assert_array_equal(outcomes["label"], data["label"])


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 4])
def test_gradients_are_divided_by_the_photos_of_an_update_and_nothing_else(make_strategy, replicas):
    """Which are a constant: with one replica's photos all padding, it is still that number."""
    strategy = make_strategy(replicas)
    data = batch(8, CLASSES, weights=[1, 1, 1, 1, 1, 0, 0, 0])
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    gradients, results = run(
        strategy,
        lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(8)),
        distributed(strategy, data),
    )
    loss, expected, *_ = by_hand(classifier, data)
    for gradient, reference in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient[0], reference, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(columns(results.outcomes)["loss"].sum(), loss, rtol=1e-6)


def test_warmup_leaves_the_backbone_alone_and_finetuning_does_not(make_strategy):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = small_classifier(3, dropout=0.5)
    data = distributed(strategy, batch(4, 3, side=32))
    before = [v.numpy() for v in classifier.features.variables]
    gradients, _ = run(
        strategy, lambda b: steps.warmup_gradients(classifier, b, SEED, objective_of(4)), data
    )
    assert [g[0].shape for g in gradients] == [v.shape for v in classifier.head.variables]
    for variable, value in zip(classifier.features.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

    gradients, _ = run(
        strategy, lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(4)), data
    )
    assert len(gradients) == len(classifier.model.trainable_variables)
    moved = [
        not np.array_equal(variable, value)
        for variable, value in zip(classifier.features.variables, before, strict=True)
    ]
    assert sum(moved) == len(before) - len(classifier.features.trainable_variables)


def statistics_on_replicas(strategy, classifier):
    """The moving statistics, each a list with a value of every replica."""
    return [
        [value.numpy() for value in strategy.experimental_local_results(variable)]
        for variable in batch_norm_statistics(classifier.model).all
    ]


def test_moving_statistics_are_the_mean_over_the_replicas(make_strategy):
    def statistics(strategy, data):
        with strategy.scope():
            classifier = small_classifier(3)
        run(
            strategy,
            lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(4)),
            distributed(strategy, data),
        )
        return statistics_on_replicas(strategy, classifier)

    data = batch(8, 3, side=32)
    halves = [{n: a[half] for n, a in data.items()} for half in (slice(0, 4), slice(4, 8))]
    on_two = statistics(make_strategy(2), data)
    alone = [statistics(make_strategy(1), half) for half in halves]
    for (first, second), (a,), (b,) in zip(on_two, *alone, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, (a + b) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("batch_norm", "on_nan"),
    [("per_replica", "skip"), ("synchronized", "skip"), ("per_replica", "stop")],
)
def test_a_step_that_is_not_finite_is_noticed_and_leaves_the_statistics_if_it_is_skipped(
    make_strategy, batch_norm, on_nan
):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = small_classifier(3, batch_norm=batch_norm)
    classifier.head.trainable_variables[1].assign([np.inf, 0, 0])
    before = statistics_on_replicas(strategy, classifier)
    _, results = run(
        strategy,
        lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(4, on_nan=on_nan)),
        distributed(strategy, batch(4, 3, side=32)),
    )
    assert not any(results.finite)
    after = statistics_on_replicas(strategy, classifier)
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old, new) == (on_nan == "skip")


@pytest.mark.core
def test_a_loss_that_is_not_finite_is_noticed_by_every_replica(make_strategy):
    """Whose gradients are finite: those of the logits are probabilities less the label's 1."""
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = linear_classifier(CLASSES)
    classifier.head.trainable_variables[1].assign([3e38, -3e38, *[0.0] * (CLASSES - 2)])
    data = batch(4, CLASSES)
    data["label"][:] = [0, 0, 0, 1]  # the likely class, and at last one that is impossible
    _, results = run(
        strategy,
        lambda b: steps.warmup_gradients(classifier, b, SEED, objective_of(4)),
        distributed(strategy, data),
    )
    assert np.isfinite(results.gradient_norm).all()
    np.testing.assert_array_equal(np.isinf(columns(results.outcomes)["loss"]), [0, 0, 0, 1])
    assert not any(results.finite)


# Collectives


@pytest.fixture
def reductions(monkeypatch):
    """Notes what every replica hands to `all_reduce`: the operation, and how many tensors."""
    noted, all_reduce = [], tf.distribute.ReplicaContext.all_reduce

    def noting(context, operation, value, options=None):
        noted.append((operation, len(tf.nest.flatten(value))))
        return all_reduce(context, operation, value, options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", noting)
    return noted


SUM, MEAN = tf.distribute.ReduceOp.SUM, tf.distribute.ReduceOp.MEAN


@pytest.mark.core
@pytest.mark.parametrize(
    ("stage", "batch_norm"),
    [
        *((steps.warmup_gradients, kind) for kind in ("per_replica", "synchronized", "frozen")),
        *((steps.finetune_gradients, kind) for kind in ("per_replica", "frozen")),
    ],
)
def test_replicas_meet_once_for_gradients_and_loss_and_once_for_their_own_statistics(
    make_strategy, reductions, stage, batch_norm
):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = small_classifier(3, batch_norm=batch_norm)
    gradients, _ = run(
        strategy,
        lambda b: stage(classifier, b, SEED, objective_of(4, clip_norm=1.0, l2=0.1)),
        distributed(strategy, batch(4, 3, side=32)),
    )
    expected = [(SUM, len(gradients) + 1)]
    if stage == steps.finetune_gradients and batch_norm == "per_replica":
        expected.append((MEAN, len(batch_norm_statistics(classifier.model).all)))
    assert reductions[0::2] == reductions[1::2] == expected


@pytest.mark.core
def test_synchronized_statistics_are_equal_on_the_replicas_without_being_averaged(
    make_strategy, reductions
):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = small_classifier(3, batch_norm="synchronized")
    before = statistics_on_replicas(strategy, classifier)

    @tf.function
    def step(data):
        return strategy.run(
            lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(4)), args=(data,)
        )

    for number in range(3):
        gradients, _ = step(distributed(strategy, batch(4, 3, side=32, seed=number)))
    after = statistics_on_replicas(strategy, classifier)
    for (first, second), (old, _) in zip(after, before, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, old)
    assert MEAN not in {operation for operation, _ in reductions}
    # All others are those of the layers themselves.
    assert reductions.count((SUM, len(gradients) + 1)) == 2, "once by each replica"


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
    options = TrainingOptions(
        **{"optimizer": name, "weight_decay": 0.0 if name in ("sgd", "adam") else 0.1},
        **{"label_smoothing": 0.1, "l2": 1e-3, "clip_norm": 0.5},
    )
    class_weights = np.linspace(0.5, 2, CLASSES).astype(np.float32)
    objective = steps.Objective(options, 16, class_weights)
    results = {}
    for replicas in (1, 2, 4, 8):
        strategy = make_strategy(replicas)
        with strategy.scope():
            # Batch normalization is per replica by nature; here it is frozen.
            classifier = (
                linear_classifier(CLASSES, size=32)
                if backbone == "linear"
                else small_classifier(CLASSES, backbone=backbone, batch_norm="frozen", dropout=0.4)
            )
            variables = classifier.model.trainable_variables
            optimizer = optimizers.make_optimizer(options, lambda: tf.constant(0.01), variables)

        def train_step(data, seed, classifier=classifier, optimizer=optimizer, v=variables):
            gradients, result = steps.finetune_gradients(classifier, data, seed, objective)
            steps.apply_gradients(optimizer, gradients, v)
            return result.outcomes

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


@pytest.mark.core
@pytest.mark.parametrize(
    ("replicas", "parts", "stage"),
    [
        (2, 1, steps.warmup_gradients),
        *((replicas, parts, steps.finetune_gradients) for replicas, parts in ((1, 2), (2, 1))),
    ],
)
def test_what_xla_compiles_comes_to_the_same(make_strategy, replicas, parts, stage):
    """Gradients, outcomes and moving statistics, with dropout and batch normalization."""
    strategy = make_strategy(replicas)
    with strategy.scope():
        classifier = small_classifier(CLASSES, dropout=0.5)
    begin = [variable.numpy() for variable in classifier.model.variables]
    data = distributed(strategy, batch(8, CLASSES, side=32))

    def found(jit):
        for variable, value in zip(classifier.model.variables, begin, strict=True):
            variable.assign(value)
        options = TrainingOptions(label_smoothing=0.1, l2=0.01, accumulate_steps=parts)
        objective = steps.Objective(options, 8, jit=jit)
        gradients, result = run(strategy, lambda b: stage(classifier, b, SEED, objective), data)
        return gradients, result, statistics_on_replicas(strategy, classifier)

    plain, compiled = found(False), found(True)
    for a, b in zip(tf.nest.flatten(plain), tf.nest.flatten(compiled), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


@pytest.mark.core
def test_the_pass_is_compiled_and_the_sum_over_replicas_is_not(make_strategy):
    strategy = make_strategy(2)
    with strategy.scope():
        classifier = small_classifier(CLASSES)
    data = distributed(strategy, batch(8, CLASSES, side=32))

    def compiled(jit):
        objective = steps.Objective(TrainingOptions(), 8, jit=jit)
        function = tf.function(
            lambda b: strategy.run(
                lambda b: steps.finetune_gradients(classifier, b, SEED, objective), args=(b,)
            )
        )
        graph = function.get_concrete_function(data).graph
        calls = [operation for operation in graph.get_operations() if "Call" in operation.type]
        return [call for call in calls if call.get_attr("_XlaMustCompile")], graph

    calls, graph = compiled(True)
    assert len(calls) == 2, "one for each replica"
    left = {operation.type for operation in graph.get_operations()}
    assert "Conv2D" not in left and "Conv2DBackpropFilter" not in left
    assert compiled(False)[0] == []


def test_l2_leaves_biases_out():
    kernel, bias = tf.Variable([[1.0, 2.0]]), tf.Variable([100.0])
    assert float(losses.l2_penalty([kernel, bias], 0.1)) == pytest.approx(0.5)


# Accumulation


@pytest.mark.core
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("stage", "backbone"),
    [
        (steps.warmup_gradients, "tiny"),
        (steps.finetune_gradients, "tiny"),  # without batch normalization
        (steps.finetune_gradients, "small_cnn"),  # with frozen
    ],
)
def test_parts_come_to_what_the_whole_comes_to(make_strategy, replicas, stage, backbone):
    """Gradients, loss, norm and outcomes; with dropout, smoothing, L2, clipping, mixed labels."""
    strategy = make_strategy(replicas)
    data = batch(8, CLASSES, side=32, weights=[1, 1, 1, 0, 1, 1, 1, 1])
    data |= {"other": data["label"][::-1].copy(), "share": np.linspace(0.5, 1, 8, dtype=np.float32)}
    with strategy.scope():
        classifier = small_classifier(CLASSES, dropout=0.5, backbone=backbone, batch_norm="frozen")

    def found(parts):
        objective = objective_of(
            8, accumulate_steps=parts, label_smoothing=0.1, l2=0.1, clip_norm=1
        )
        return run(
            strategy, lambda b: stage(classifier, b, SEED, objective), distributed(strategy, data)
        )

    whole, parts = found(1), found(4 // replicas)
    for a, b in zip(whole[0], parts[0], strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole[1].gradient_norm[0], parts[1].gradient_norm[0], rtol=1e-5)
    np.testing.assert_allclose(
        np.concatenate(whole[1].outcomes), np.concatenate(parts[1].outcomes), rtol=1e-5, atol=1e-6
    )


@pytest.mark.core
def test_each_part_is_normalized_by_itself_and_moves_the_statistics_once():
    classifier = small_classifier(CLASSES)
    statistics = batch_norm_statistics(classifier.model).all
    begin = [variable.numpy() for variable in statistics]
    data = batch(8, CLASSES, side=32)
    strategy = tf.distribute.get_strategy()

    def moved(parts):
        objective = objective_of(8, accumulate_steps=len(parts))
        for part in parts if len(parts) > 1 else []:
            run(
                strategy,
                lambda b: steps.finetune_gradients(classifier, b, SEED, objective_of(8)),
                {name: tf.constant(values[part]) for name, values in data.items()},
            )
        one_by_one = [variable.numpy() for variable in statistics]
        for variable, value in zip(statistics, begin, strict=True):
            variable.assign(value)
        run(
            strategy,
            lambda b: steps.finetune_gradients(classifier, b, SEED, objective),
            {name: tf.constant(values) for name, values in data.items()},
        )
        return one_by_one, [variable.numpy() for variable in statistics]

    expected, found = moved([slice(0, 4), slice(4, 8)])
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert any(not np.allclose(a, b) for a, b in zip(begin, found, strict=True))
