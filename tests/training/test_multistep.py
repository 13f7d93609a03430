import functools
import time

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.augment import apply, mixing
from flowers_tpu.data.augment.draws import draws_from
from flowers_tpu.data.augment.options import Augmentation
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.models.dropout import StatelessDropout
from flowers_tpu.training import calls, metrics, multistep, optimizers, steps
from flowers_tpu.training.options import ScheduleOptions, TrainingOptions
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import Progress, TrainState, step_counter
from tests.photos import batch, linear_classifier, small_classifier

pytestmark = pytest.mark.core

CLASSES, BATCH = 4, 8
RATES = np.linspace(0.01, 0.1, 20, dtype=np.float32)


def objective_of(**options):
    return steps.Objective(TrainingOptions(**options), BATCH)


def make_state(strategy, size=2, make_classifier=linear_classifier):
    with strategy.scope():
        classifier = make_classifier(CLASSES, size)
        step = step_counter()
        warmup, finetune = (
            optimizers.make_optimizer(
                TrainingOptions(), lambda: tf.gather(tf.constant(RATES), step), variables
            )
            for variables in (
                classifier.head.trainable_variables,
                classifier.model.trainable_variables,
            )
        )
    return TrainState(classifier, warmup, finetune, step, Progress(metrics.empty(CLASSES)))


def batches(strategy, numbers, *, bad=None):
    """An iterator over global batches of 8; the one numbered `bad` has an infinite weight."""
    arrays = {number: batch(BATCH, CLASSES, seed=number) for number in numbers}
    if bad is not None:
        arrays[bad]["weight"][3] = np.inf
    stacked = {
        name: np.concatenate([arrays[number][name] for number in numbers])
        for name in ("image", "label", "weight")
    }
    return distributed_batches(strategy, stacked)


def distributed_batches(strategy, arrays):
    local = BATCH // strategy.num_replicas_in_sync
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(local, drop_remainder=True)
    return iter(strategy.distribute_datasets_from_function(lambda context: dataset))


def weights_and_slots(state, stage="finetune"):
    optimizer = getattr(state, f"{stage}_optimizer")
    return [v.numpy() for v in (*state.classifier.model.variables, *optimizer.variables())]


def trained(strategy, counts, *, on_nan="stop", bad=None):
    """Weights, slots, sums and the state after calls of so many steps; and the function."""
    state = make_state(strategy)
    function = multistep.compile_train_steps(
        strategy, state, "finetune", objective_of(on_nan=on_nan)
    )
    iterator, sums = batches(strategy, range(sum(counts)), bad=bad), metrics.empty(CLASSES)
    for count in counts:
        results = function(iterator, tf.constant(count))
        assert results.outcomes.shape == (count, BATCH, len(metrics.COLUMNS))
        assert results.gradient_norms.shape == results.finite.shape == (count,)
        sums = metrics.added(sums, np.concatenate(results.outcomes))
    return weights_and_slots(state), sums, state, function


def assert_same(values, others):
    for a, b in zip(values, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_trace_whatever_the_number_of_steps(make_strategy):
    *_, function = trained(make_strategy(2), [1, 3, 2, 5])
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_where_calls_end_makes_no_difference(make_strategy, on_nan):
    whole = trained(make_strategy(2), [9], on_nan=on_nan)
    parts = trained(make_strategy(2), [1, 5, 3], on_nan=on_nan)
    assert_same(whole[0], parts[0])
    assert_same(whole[1].values(), parts[1].values())
    assert whole[2].step.numpy() == parts[2].step.numpy() == 9


def test_whether_bad_steps_are_skipped_makes_no_difference_to_good_ones(make_strategy):
    stop, skip = (trained(make_strategy(2), [4], on_nan=on_nan) for on_nan in ("stop", "skip"))
    assert_same(stop[0], skip[0])
    assert_same(stop[1].values(), skip[1].values())


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_every_replica_counts_the_steps_the_same(make_strategy, replicas, on_nan):
    strategy = make_strategy(replicas)
    *_, state, _ = trained(strategy, [2, 3], on_nan=on_nan)
    counts = strategy.experimental_local_results(state.step)
    assert [int(count.numpy()) for count in counts] == [5] * replicas


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_replicas_function_counts_the_step(make_strategy, replicas):
    """So that nothing of a step is left to whoever runs it."""
    strategy = make_strategy(replicas)
    state = make_state(strategy)
    whole = multistep.whole_step(multistep.replica_step(state, "finetune", objective_of()), state)
    iterator = batches(strategy, range(3))
    run = tf.function(lambda data: strategy.run(whole, args=(data,)))
    for number in range(3):
        assert state.step.numpy() == number
        run(next(iterator))
    counts = strategy.experimental_local_results(state.step)
    assert [int(count.numpy()) for count in counts] == [3] * replicas


# The graph


def functions_of(concrete):
    return {f.signature.name: f for f in concrete.graph.as_graph_def().library.function}


def operations_of(name, functions):
    """The operations of a function and of all that it calls."""
    for node in functions[name].node_def:
        yield node.op
        for attribute in node.attr.values():
            called = [attribute.func.name, *(f.name for f in attribute.list.func)]
            for other in filter(None, called):
                yield from operations_of(other, functions)


def read_for(output, function):
    """The numbers of the arguments that the `output`-th result of a function is made of.

    Control edges are passed over: they wait until a kernel is started, not until it has ended.
    """
    nodes = {node.name: node for node in function.node_def}
    arguments = [argument.name for argument in function.signature.input_arg]
    waiting, seen = [function.ret[function.signature.output_arg[output].name]], set()
    while waiting:
        name = waiting.pop().partition(":")[0]
        if name not in seen and not name.startswith("^"):
            seen.add(name)
            waiting += nodes[name].input if name in nodes else []
    return {arguments.index(name) for name in seen if name in arguments}


def loop_of(function, *args):
    """The `cond` and `body` of a compiled function's one loop, and all functions by name."""
    concrete = function.get_concrete_function(*args)
    functions = functions_of(concrete)
    loops = [op for op in concrete.graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert len(loops) == 1
    cond, body = (functions[loops[0].get_attr(name).name] for name in ("cond", "body"))
    return cond, body, functions


def read_by_condition(cond, body):
    """The types of all that decides whether the loop goes on, one step or many steps later."""
    decisive, waiting = set(), read_for(0, cond)
    while waiting - decisive:
        decisive |= waiting
        waiting = set().union(*(read_for(number, body) for number in decisive))
    arguments = body.signature.input_arg
    return [tf.as_dtype(arguments[number].type) for number in sorted(decisive)]


def branches(body, functions):
    found = operations_of(body.signature.name, functions)
    return [name for name in found if name in ("If", "StatelessIf", "Case", "StatelessCase")]


def convolutional(num_classes, size):
    return small_classifier(num_classes, image_size=size, dropout=0.3)


OPTIONS = {"clip_norm": 0.5, "label_smoothing": 0.1, "l2": 0.1}


@pytest.mark.parametrize(
    ("replicas", "make_classifier"), [(1, linear_classifier), (2, convolutional)]
)
@pytest.mark.parametrize("stage", ["warmup", "finetune"])
def test_the_loop_looks_at_its_counter_alone(make_strategy, replicas, make_classifier, stage):
    """Else every step would wait until the one before is done."""
    strategy = make_strategy(replicas)
    state = make_state(strategy, 32, make_classifier)
    function = multistep.compile_train_steps(strategy, state, stage, objective_of(**OPTIONS))
    iterator = distributed_batches(strategy, batch(BATCH, CLASSES, side=32))
    cond, body, functions = loop_of(function, iterator, tf.constant(1))
    types = read_by_condition(cond, body)
    assert 2 <= len(types) <= 4 and set(types) == {tf.int32}, types
    assert "ResourceApplyAdam" in set(operations_of(body.signature.name, functions))
    assert branches(body, functions) == []


def test_a_loop_over_parts_brings_no_condition(make_strategy):
    strategy = make_strategy(2)
    function = multistep.compile_train_steps(
        strategy, make_state(strategy), "finetune", objective_of(accumulate_steps=2)
    )
    cond, body, functions = loop_of(function, batches(strategy, [0]), tf.constant(1))
    assert set(read_by_condition(cond, body)) == {tf.int32}
    assert branches(body, functions) == []


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("slow", ["input", "step"])
def test_what_a_step_waits_for_is_the_input_only(make_strategy, replicas, slow):
    """0.1 s for each of a replica's four batches, in the reading or in the step."""

    def asleep(images):
        def sleep(images):
            time.sleep(0.1)
            return images

        slept = tf.numpy_function(sleep, [images], images.dtype)
        return tf.ensure_shape(slept, images.shape)

    def slowly(batch):
        return {**batch, "image": asleep(batch["image"])}

    strategy, local = make_strategy(replicas), BATCH // replicas
    dataset = tf.data.Dataset.from_tensors(batch(local, CLASSES, seed=0)).repeat(4 * replicas)
    if slow == "input":
        dataset = dataset.map(slowly)
    train_steps = multistep.compile_train_steps(
        *(strategy, make_state(strategy), "finetune", objective_of()),
        slowly if slow == "step" else None,
    )
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: dataset.prefetch(8)))
    begin = time.perf_counter()
    waits = train_steps(iterator, tf.constant(4)).input_waits.numpy()
    assert waits.shape == (4,) and (waits >= 0).all()
    assert waits.sum() < time.perf_counter() - begin
    if slow == "input":
        assert (waits >= 0.05).all()  # the first batches are read while the call is compiled
    else:
        assert waits[1:].sum() < 0.1  # of 0.3 s


@pytest.mark.parametrize("replicas", [1, 2])
def test_only_to_skip_bad_steps_there_is_a_condition(make_strategy, replicas):
    strategy = make_strategy(replicas)
    function = multistep.compile_train_steps(
        strategy, make_state(strategy), "finetune", objective_of(on_nan="skip")
    )
    cond, body, functions = loop_of(function, batches(strategy, [0]), tf.constant(1))
    assert set(read_by_condition(cond, body)) == {tf.int32}
    assert branches(body, functions) == ["If"]


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_evaluation_looks_at_its_counter_alone(make_strategy, replicas):
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = linear_classifier(CLASSES).model
    function = multistep.compile_eval_steps(strategy, model)
    cond, body, functions = loop_of(function, batches(strategy, [0]), tf.constant(1))
    assert set(read_by_condition(cond, body)) == {tf.int32}
    assert branches(body, functions) == []


# Bad steps


class CallsOf:
    """Decides that calls have so many steps."""

    def __init__(self, *counts):
        self.counts = list(counts)

    def decide(self, step, epoch_end, pacer):
        return calls.Decision(self.counts.pop(0) if step < epoch_end else 0)


def epoch_of(strategy, counts, *, on_nan, bad=None):
    """An epoch of 9 steps in calls of so many; its calls and the state after it."""
    state, objective = make_state(strategy), objective_of(on_nan=on_nan)
    plan = Plan(ScheduleOptions(), objective.options, CLASSES, BATCH, 9, RATES, objective)
    function = multistep.compile_train_steps(strategy, state, "finetune", objective)
    iterator = batches(strategy, range(9), bad=bad)
    found = list(calls.train_epoch(function, iterator, plan, state, CallsOf(*counts), Pacer()))
    assert [call.steps for call in found] == list(counts)
    return found, state


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("bad", [3, 4, 7])
def test_the_first_bad_step_of_a_call_is_reported(make_strategy, replicas, bad):
    """The first, a middle and the last step of a call; nothing from it on is in a sum."""
    strategy = make_strategy(replicas)
    (before, call, *_), state = epoch_of(strategy, [3, 5, 1], on_nan="stop", bad=bad)
    assert before.bad_steps == ()
    (reported,) = call.bad_steps
    assert reported.step == bad
    assert reported.learning_rate == float(RATES[bad])
    assert not np.isfinite(reported.gradient_norm)
    good = trained(strategy, [bad])[1]
    assert good["confusion"].sum() == bad * BATCH
    assert_same(state.progress.sums.values(), good.values())


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("counts", [[9], [3, 5, 1], [4, 5]])
def test_training_goes_on_after_a_skipped_step_as_if_its_update_were_none(
    make_strategy, replicas, counts
):
    strategy, bad = make_strategy(replicas), 4
    found, state = epoch_of(strategy, counts, on_nan="skip", bad=bad)
    assert [one.step for call in found for one in call.bad_steps] == [bad]
    assert state.progress.skipped == [bad]
    assert state.step.numpy() == 9

    without = make_state(strategy)
    function = multistep.compile_train_steps(strategy, without, "finetune", objective_of())
    iterator, sums = batches(strategy, [n for n in range(9) if n != bad]), metrics.empty(CLASSES)
    for count, skipped in ((4, 1), (4, 0)):
        results = function(iterator, tf.constant(count))
        sums = metrics.added(sums, np.concatenate(results.outcomes))
        without.step.assign_add(skipped)
    assert_same(weights_and_slots(state), weights_and_slots(without))
    assert_same(state.progress.sums.values(), sums.values())


# What a step sees


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_outcomes_of_training_come_in_the_order_of_the_photos(make_strategy, replicas):
    strategy = make_strategy(replicas)
    function = multistep.compile_train_steps(
        strategy, make_state(strategy), "warmup", objective_of()
    )
    outcomes, *_ = function(batches(strategy, range(3)), tf.constant(3))
    labels = [batch(BATCH, CLASSES, seed=number)["label"] for number in range(3)]
    np.testing.assert_array_equal(outcomes[..., metrics.COLUMNS.index("label")], labels)


def test_the_rate_of_each_step_is_taken(make_strategy):
    """Adam's first update is the rate times the sign of the gradient."""
    state = make_state(make_strategy(2))
    state.step.assign(10)
    before = [v.numpy() for v in state.classifier.model.trainable_variables]
    function = multistep.compile_train_steps(make_strategy(2), state, "warmup", objective_of())
    function(batches(make_strategy(2), [0]), tf.constant(1))
    for old, new in zip(before, state.classifier.model.trainable_variables, strict=True):
        np.testing.assert_allclose(np.abs(new.numpy() - old), RATES[10], rtol=1e-2)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_eval_and_predict_agree(make_strategy, replicas):
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = linear_classifier(CLASSES).model
    outcomes = multistep.compile_eval_steps(strategy, model)(
        batches(strategy, range(3)), tf.constant(3)
    )
    assert outcomes.shape == (3, BATCH, len(metrics.COLUMNS))
    predict = multistep.compile_predict_step(strategy, model)
    iterator = batches(strategy, range(3))
    logits = np.concatenate([predict(iterator).numpy() for _ in range(3)])
    data = [batch(BATCH, CLASSES, seed=number) for number in range(3)]
    images = np.concatenate([d["image"] for d in data])
    labels = np.concatenate([d["label"] for d in data])
    np.testing.assert_allclose(logits, model(images), rtol=1e-5, atol=1e-6)
    rows = dict(zip(metrics.COLUMNS, np.concatenate(outcomes).T, strict=True))
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
        optimizer = optimizers.make_optimizer(
            TrainingOptions(optimizer="sgd"), lambda: tf.constant(0.0), head.variables
        )
    classifier = Classifier(model, plain.features, head)
    state = TrainState(classifier, optimizer, optimizer, step, Progress(metrics.empty(CLASSES)))
    function = multistep.compile_train_steps(strategy, state, "warmup", objective_of(seed=3))

    def loss_at(number):  # nothing moves: the rate is 0 and the batch always the first one
        step.assign(number)
        outcomes, *_ = function(batches(strategy, [0]), tf.constant(1))
        return float(metrics.added(metrics.empty(CLASSES), np.concatenate(outcomes))["loss"])

    first = [loss_at(number) for number in (0, 1, 2)]
    assert len(set(first)) == 3
    assert [loss_at(number) for number in (0, 1, 2)] == first


# Augmentation on the device

PHOTO_SIZE, IMAGE_SIZE = 12, 8
AUGMENT = {"image_size": IMAGE_SIZE, "augmentation": Augmentation(random_erasing=0.5)}


def augment_on_device(batch):
    return batch | {"image": apply.on_device(batch["image"], batch["draws"], **AUGMENT)}


@functools.cache
def photos_and_draws():
    """Three global batches of photos, with the draws of their examples."""
    arrays = [batch(BATCH, CLASSES, side=PHOTO_SIZE, seed=number) for number in range(3)]
    stacked = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    return stacked | {"draws": next(draws_from(3, 0).batch(24).as_numpy_iterator())}


def trained_on(strategy, arrays, stage, on_device, counts=(1, 1, 1)):
    """Weights with slots, sums, and the gradient norms of the steps."""
    state = make_state(strategy, IMAGE_SIZE)
    function = multistep.compile_train_steps(strategy, state, stage, objective_of(), on_device)
    iterator = distributed_batches(strategy, arrays)
    sums, norms = metrics.empty(CLASSES), []
    for count in counts:
        results = function(iterator, tf.constant(count))
        sums = metrics.added(sums, np.concatenate(results.outcomes))
        norms += results.gradient_norms.numpy().tolist()
        assert np.all(results.finite)
    return weights_and_slots(state, stage), sums, norms


@functools.cache
def trained_on_augmented_images(stage):
    """On one replica, with images as a host gives them."""
    arrays = dict(photos_and_draws())
    photos = zip(tf.constant(arrays["image"]), tf.constant(arrays.pop("draws")), strict=True)
    arrays["image"] = np.stack([apply.on_host(*photo, **AUGMENT) for photo in photos])
    return trained_on(tf.distribute.get_strategy(), arrays, stage, None)


@pytest.mark.parametrize(
    ("replicas", "stage"), [(1, "finetune"), (2, "finetune"), (4, "finetune"), (2, "warmup")]
)
def test_augmenting_on_the_device_trains_as_with_images_of_the_host(make_strategy, replicas, stage):
    """Draws travel with their photos to every replica: weights, slots, loss and gradients."""
    device = trained_on(make_strategy(replicas), photos_and_draws(), stage, augment_on_device)
    host = trained_on_augmented_images(stage)
    # An image differs by a level if a half is rounded, so gradients by very little.
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


@pytest.mark.core
@pytest.mark.parametrize("stage", ["warmup", "finetune"])
def test_mixed_photos_train_the_same_on_any_number_of_replicas(make_strategy, stage):
    wanted = Augmentation(mixup=0.3, cutmix=1.0)

    def mixed(batch):
        return mixing.mixed(augment_on_device(batch), wanted)

    one, four = (trained_on(make_strategy(n), photos_and_draws(), stage, mixed) for n in (1, 4))
    for a, b in zip(one[0], four[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert one[1]["loss"] == pytest.approx(four[1]["loss"], rel=1e-5)
    np.testing.assert_array_equal(one[1]["confusion"], four[1]["confusion"])
    plain = trained_on(make_strategy(1), photos_and_draws(), stage, augment_on_device)
    assert not np.allclose(plain[2], one[2], rtol=1e-2)


def test_where_calls_end_makes_no_difference_to_augmentation(make_strategy):
    whole, parts = (
        trained_on(make_strategy(2), photos_and_draws(), "finetune", augment_on_device, counts)
        for counts in ([3], [1, 2])
    )
    assert_same(whole[0], parts[0])
    assert_same(whole[1].values(), parts[1].values())
    assert whole[2] == parts[2]
