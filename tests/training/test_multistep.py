import functools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import apply
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.models.dropout import StatelessDropout
from flowers_tpu.training import metrics, multistep, optimizers, steps
from flowers_tpu.training.state import Progress, TrainState, step_counter
from tests.photos import batch, linear_classifier

pytestmark = pytest.mark.core

CLASSES = 4


def make_state(strategy, size=2):
    with strategy.scope():
        classifier = linear_classifier(CLASSES, size)
        step = step_counter()
        rates = tf.constant(np.linspace(0.01, 0.1, 20), tf.float32)
        warmup, finetune = (
            optimizers.make_optimizer("adam", lambda: tf.gather(rates, step), variables)
            for variables in (
                classifier.head.trainable_variables,
                classifier.model.trainable_variables,
            )
        )
    return TrainState(classifier, warmup, finetune, step, Progress(metrics.empty(CLASSES)))


def batches(strategy, count, *, bad=None):
    """An iterator over global batches of 8; the one numbered `bad` has an infinite weight."""
    arrays = [batch(8, CLASSES, seed=number) for number in range(count)]
    if bad is not None:
        arrays[bad]["weight"][3] = np.inf
    stacked = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    local = 8 // strategy.num_replicas_in_sync
    dataset = tf.data.Dataset.from_tensor_slices(stacked).batch(local, drop_remainder=True)
    return iter(strategy.distribute_datasets_from_function(lambda context: dataset))


def trained(strategy, calls, *, skips_bad_steps=False, **options):
    """Weights, slots and sums after calls of so many steps."""
    state = make_state(strategy)
    function = multistep.compile_train_steps(
        strategy, state, "finetune", 0, steps.Objective(), skips_bad_steps=skips_bad_steps
    )
    iterator, sums, finite = batches(strategy, sum(calls), **options), metrics.empty(CLASSES), True
    for count in calls:
        outcomes, _, finite = function(iterator, tf.constant(count))
        sums = metrics.added(sums, outcomes.numpy())
    variables = [*state.classifier.model.variables, *state.finetune_optimizer.variables()]
    return [v.numpy() for v in variables], sums, bool(finite), state, function


def test_one_trace_whatever_the_number_of_steps(make_strategy):
    *_, function = trained(make_strategy(2), [1, 3, 2, 5])
    assert function.experimental_get_tracing_count() == 1


def test_where_calls_end_makes_no_difference(make_strategy):
    whole = trained(make_strategy(2), [9])
    parts = trained(make_strategy(2), [1, 5, 3])
    for a, b in zip(whole[0], parts[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in whole[1]:
        np.testing.assert_array_equal(whole[1][name], parts[1][name])
    assert whole[3].step.numpy() == parts[3].step.numpy() == 9


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_first_bad_step_ends_the_call_before_its_update(make_strategy, replicas):
    strategy = make_strategy(replicas)
    good = trained(strategy, [4])  # a good step is the same either way
    bad = trained(strategy, [9], bad=4, skips_bad_steps=True)
    assert good[2] and not bad[2]
    assert bad[3].step.numpy() == 4, "the step counter tells which step was bad"
    for a, b in zip(good[0], bad[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in good[1]:
        np.testing.assert_array_equal(good[1][name], bad[1][name])


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_call_whose_first_step_is_bad_has_no_outcomes(make_strategy, replicas):
    _, sums, finite, state, _ = trained(
        make_strategy(replicas), [3, 2], bad=3, skips_bad_steps=True
    )
    assert not finite and state.step.numpy() == 3
    assert sums["confusion"].sum() == 3 * 8


@pytest.mark.parametrize("replicas", [1, 2])
def test_without_skipping_too_a_bad_step_ends_the_call(make_strategy, replicas):
    _, sums, finite, state, _ = trained(make_strategy(replicas), [9], bad=4)
    assert not finite
    assert state.step.numpy() == 4
    assert sums["confusion"].sum() == 4 * 8


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_outcomes_of_training_come_in_the_order_of_the_photos(make_strategy, replicas):
    strategy = make_strategy(replicas)
    function = multistep.compile_train_steps(
        strategy, make_state(strategy), "warmup", 0, steps.Objective()
    )
    outcomes, *_ = function(batches(strategy, 3), tf.constant(3))
    labels = np.concatenate([batch(8, CLASSES, seed=number)["label"] for number in range(3)])
    np.testing.assert_array_equal(outcomes[:, metrics.COLUMNS.index("label")], labels)


def test_the_rate_of_each_step_is_taken(make_strategy):
    """Adam's first update is the rate times the sign of the gradient."""
    state = make_state(make_strategy(2))
    state.step.assign(10)
    before = [v.numpy() for v in state.classifier.model.trainable_variables]
    function = multistep.compile_train_steps(make_strategy(2), state, "warmup", 0, steps.Objective())
    function(batches(make_strategy(2), 1), tf.constant(1))
    rate = np.linspace(0.01, 0.1, 20)[10]
    for old, new in zip(before, state.classifier.model.trainable_variables, strict=True):
        np.testing.assert_allclose(np.abs(new.numpy() - old), rate, rtol=1e-2)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_eval_and_predict_agree(make_strategy, replicas):
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = linear_classifier(CLASSES).model
    outcomes = multistep.compile_eval_steps(strategy, model)(batches(strategy, 3), tf.constant(3))
    predict = multistep.compile_predict_step(strategy, model)
    iterator = batches(strategy, 3)
    logits = np.concatenate([predict(iterator).numpy() for _ in range(3)])
    data = [batch(8, CLASSES, seed=number) for number in range(3)]
    images = np.concatenate([d["image"] for d in data])
    labels = np.concatenate([d["label"] for d in data])
    np.testing.assert_allclose(logits, model(images), rtol=1e-5, atol=1e-6)
    rows = dict(zip(metrics.COLUMNS, outcomes.numpy().T, strict=True))
    np.testing.assert_array_equal(rows["label"], labels)
    np.testing.assert_array_equal(rows["predicted"], logits.argmax(axis=1))


def test_dropout_differs_from_step_to_step_and_is_the_same_again(make_strategy):
    strategy = make_strategy(2)
    with strategy.scope():
        plain = linear_classifier(CLASSES)
        pooled = tf.keras.Input((12,))
        logits = tf.keras.layers.Dense(CLASSES)(StatelessDropout(0.5)(pooled))
        head = tf.keras.Model(pooled, logits)
        images = plain.features.input
        model = tf.keras.Model(images, head(plain.features(images)))
        step = step_counter()
        optimizer = optimizers.make_optimizer("sgd", lambda: tf.constant(0.0), head.variables)
    classifier = Classifier(model, plain.features, head)
    state = TrainState(classifier, optimizer, optimizer, step, Progress(metrics.empty(CLASSES)))
    function = multistep.compile_train_steps(strategy, state, "warmup", 3, steps.Objective())

    def loss_at(number):  # nothing moves: the rate is 0 and the batch always the first one
        step.assign(number)
        outcomes, *_ = function(batches(strategy, 1), tf.constant(1))
        return float(metrics.added(metrics.empty(CLASSES), outcomes.numpy())["loss"])

    first = [loss_at(number) for number in (0, 1, 2)]
    assert len(set(first)) == 3
    assert [loss_at(number) for number in (0, 1, 2)] == first


# Augmentation on the device

PHOTO_SIZE, IMAGE_SIZE = 12, 8
OPTIONS = {"image_size": IMAGE_SIZE, "augmentation": apply.Augmentation(random_erasing=0.5)}
augment_on_device = functools.partial(apply.on_device, **OPTIONS)


@functools.cache
def photos_and_draws():
    """Three global batches of photos, with the draws of their examples."""
    arrays = [batch(8, CLASSES, side=PHOTO_SIZE, seed=number) for number in range(3)]
    stacked = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    return stacked | {"draws": next(apply.draws_from(3, 0).batch(24).as_numpy_iterator())}


def trained_on(strategy, arrays, stage, on_device, calls=(1, 1, 1)):
    """Weights, slots, sums, and the gradient norms at the ends of calls."""
    state = make_state(strategy, IMAGE_SIZE)
    function = multistep.compile_train_steps(strategy, state, stage, 0, steps.Objective(), on_device)
    local = 8 // strategy.num_replicas_in_sync
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(local, drop_remainder=True)
    iterator = iter(strategy.distribute_datasets_from_function(lambda context: dataset))
    sums, norms = metrics.empty(CLASSES), []
    for count in calls:
        outcomes, norm, finite = function(iterator, tf.constant(count))
        sums = metrics.added(sums, outcomes.numpy())
        norms.append(float(norm))
        assert finite
    optimizer = getattr(state, f"{stage}_optimizer")
    variables = [*state.classifier.model.variables, *optimizer.variables()]
    return [v.numpy() for v in variables], sums, norms


@functools.cache
def trained_on_augmented_images(stage):
    """On one replica, with images as a host gives them."""
    arrays = dict(photos_and_draws())
    photos = zip(tf.constant(arrays["image"]), tf.constant(arrays.pop("draws")), strict=True)
    arrays["image"] = np.stack([apply.on_host(*photo, **OPTIONS) for photo in photos])
    return trained_on(tf.distribute.get_strategy(), arrays, stage, None)


@pytest.mark.parametrize(
    ("replicas", "stage"), [(1, "finetune"), (2, "finetune"), (4, "finetune"), (2, "warmup")]
)
def test_augmenting_on_the_device_trains_as_with_images_of_the_host(make_strategy, replicas, stage):
    """Draws travel with their photos to every replica: weights, slots, loss and gradients."""
    device = trained_on(make_strategy(replicas), photos_and_draws(), stage, augment_on_device)
    host = trained_on_augmented_images(stage)
    # An image differs by a level where halves are rounded, so gradients by very little.
    for a, b in zip(device[0], host[0], strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)
    assert device[1]["loss"] == pytest.approx(host[1]["loss"], rel=1e-4)
    np.testing.assert_allclose(device[2], host[2], rtol=1e-3)
    np.testing.assert_array_equal(device[1]["confusion"], host[1]["confusion"])


def test_other_draws_train_something_else(make_strategy):
    arrays = photos_and_draws()
    moved = arrays | {"draws": np.roll(arrays["draws"], 1, axis=0)}
    other = trained_on(make_strategy(2), moved, "finetune", augment_on_device)
    loss = trained_on_augmented_images("finetune")[1]["loss"]
    assert abs(other[1]["loss"] - loss) > 1e-2 * loss


def test_where_calls_end_makes_no_difference_to_augmentation(make_strategy):
    whole, parts = (
        trained_on(make_strategy(2), photos_and_draws(), "finetune", augment_on_device, calls)
        for calls in ([3], [1, 2])
    )
    for a, b in zip(whole[0], parts[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in whole[1]:
        np.testing.assert_array_equal(whole[1][name], parts[1][name])
