import math
import types

import numpy as np
import pytest
import tensorflow as tf
from benchmarking import BATCH, SIZE, make_work, resolved

from flowers_tpu.benchmarks import compute, end_to_end, evaluating, inputs, keras_fit, rounds
from flowers_tpu.data.augment import apply
from flowers_tpu.runs import recipe
from flowers_tpu.system.errors import RunError


@pytest.fixture(scope="module")
def work(folder):
    """Of one replica and host augmentation; tests may train it."""
    return make_work(folder, steps_per_loop=3)


def weights(part):
    return np.concatenate([variable.numpy().ravel() for variable in part.variables])


def test_steps_are_divided_into_calls():
    assert list(compute.calls(10, 4)) == [4, 4, 2]
    assert list(compute.calls(3, 4)) == [3]


@pytest.mark.parametrize("replicas, augment_on", [(1, "host"), (2, "device")])
def test_training_does_the_steps_asked_for(folder, work, make_strategy, replicas, augment_on):
    if replicas > 1:
        work = make_work(folder, make_strategy(replicas), augment_on=augment_on)
    images = work.strategy.experimental_local_results(work.resident.batch["image"])
    assert [image.shape for image in images] == [(BATCH // replicas, SIZE, SIZE, 3)] * replicas
    assert ("draws" in work.resident.batch) is (augment_on == "device")
    before = weights(work.state.classifier.model)
    side = compute.train_side(work, "train", "finetune", steps_per_call=3)
    assert side.photos_per_step == BATCH
    assert side.open()(7) > 0
    assert work.state.step.numpy() == 7
    assert np.abs(weights(work.state.classifier.model) - before).max() > 0
    # Fed by tf.data it is the same function on the same photos.
    side = compute.train_side(work, "fed", "finetune", 3, lambda: iter(work.batches))
    run = side.open()
    run(2)
    run(3)
    assert work.state.step.numpy() == 5


def test_the_warm_up_leaves_the_backbone_alone(work):
    classifier = work.state.classifier
    backbone, head = weights(classifier.features), weights(classifier.head)
    compute.train_side(work, "warm-up", "warmup", steps_per_call=2).open()(2)
    np.testing.assert_array_equal(weights(classifier.features), backbone)
    assert np.abs(weights(classifier.head) - head).max() > 0


def test_inference_changes_nothing(work):
    before = weights(work.state.classifier.model)
    for side in (
        compute.forward_side(work, "forward", 2),
        compute.eval_side(work, "evaluation", 2),
        compute.predict_side(work, "prediction"),
    ):
        assert side.open()(3) > 0
    np.testing.assert_array_equal(weights(work.state.classifier.model), before)


def make_bad_work(folder, **flags):
    work = make_work(folder, **flags)
    kernel = work.state.classifier.head.trainable_variables[0]
    kernel.assign(tf.fill(kernel.shape, math.nan))
    return work


def test_steps_that_are_not_finite_are_not_timed(folder):
    work = make_bad_work(folder)
    with pytest.raises(RunError, match="train: loss or gradients are not finite"):
        compute.train_side(work, "train", "finetune", 4).open()(4)


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_loop_whose_steps_are_not_finite_is_not_timed(folder, on_nan):
    work = make_bad_work(folder, on_nan=on_nan)
    batches = inputs.endless_batches(work.config, work.strategy, recipe.load_data(work.config))
    run = end_to_end.side(work, "the loop", batches).open()
    with pytest.raises(RunError, match=r"the loop: .* not finite \(step 0\); a lower --learning_"):
        run(3)


@pytest.mark.parametrize(
    "call_seconds, step_seconds, counts, found",
    [
        (0.0, 0.3, [1, 1, 3], 3),  # not the four that would take more than the second
        (0.01, 0.003, [1, 1, 76, 319], 329),  # what a call costs is shared by its steps
        (0.0, 50.0, [1, 1], 1),
    ],
)
def test_a_call_has_as_many_steps_as_one_of_the_loop(
    folder, monkeypatch, call_seconds, step_seconds, counts, found
):
    now, done = [0.0], []

    def run(steps):
        now[0] += call_seconds + steps * step_seconds + (0 if done else 20)  # the first compiles
        done.append(steps)

    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(compute.pacing, "time", clock)
    side = rounds.Side("trial", BATCH, lambda: run)
    monkeypatch.setattr(compute, "train_side", lambda *_: side)
    work = types.SimpleNamespace(config=resolved(folder, tf.distribute.get_strategy()))
    assert compute.steps_per_call(work) == found
    assert done == counts


def test_a_call_has_the_steps_that_are_asked_for(work):
    assert compute.steps_per_call(work) == 3


def test_the_forward_pass_augments_only_where_the_warm_up_beside_it_does(folder, monkeypatch):
    work = make_work(folder, augment_on="device")
    seen = []

    def augmented(images, draws):
        seen.append((images.shape, draws.shape))
        return images

    monkeypatch.setattr(compute.feed, "augment_on_device", lambda config: augmented)
    assert compute.forward_side(work, "forward", 2).open()(1) > 0
    assert not seen
    assert compute.forward_side(work, "like the warm-up", 2, augmented=True).open()(1) > 0
    assert seen == [((BATCH, SIZE, SIZE, 3), (BATCH, apply.NUM_DRAWS))]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_flops_of_a_photo_are_the_same_on_any_number_of_replicas(
    folder, make_strategy, replicas
):
    data = recipe.load_data(resolved(folder, tf.distribute.get_strategy()), ("train",))
    alone = make_work(folder, global_batch_size=4)
    assert compute.of_one_replica(alone, data) is alone
    work = make_work(folder, make_strategy(replicas), global_batch_size=4 * replicas)
    one = compute.of_one_replica(work, data)
    assert one.strategy.num_replicas_in_sync == 1 and one.plan.global_batch_size == 4
    assert compute.train_flops(one) == compute.train_flops(alone)
    assert compute.forward_flops(one) == compute.forward_flops(alone)
    # The convolution and the head, by hand, and what is done to each element.
    by_hand = 2 * 27 * 4 * 4 * 8 + 2 * 8 * 3
    assert compute.forward_flops(one) == pytest.approx(by_hand, rel=0.1)


def test_the_flops_of_a_photo_are_the_networks_without_augmentation(folder):
    on_host, on_device = (make_work(folder, augment_on=place) for place in ("host", "device"))
    assert compute.train_flops(on_device) == compute.train_flops(on_host)


def test_the_loop_goes_on_over_epochs_for_the_steps_asked_for(work):
    batches = inputs.endless_batches(work.config, work.strategy, recipe.load_data(work.config))
    side = end_to_end.side(work, "loop", batches)
    run = side.open()
    run(5)  # 20 photos make 2 steps an epoch
    assert work.state.step.numpy() == 5
    run(1)
    assert work.state.step.numpy() == 6
    assert [row["step"] for row in work.state.progress.history] == [2, 4]
    side.open()(3)  # begins anew
    assert work.state.step.numpy() == 3
    assert [row["step"] for row in work.state.progress.history] == [2]


def test_a_pass_over_a_split_sees_every_photo(work, monkeypatch):
    split = recipe.load_data(work.config).splits["val"]
    seen = []
    evaluate, predict = evaluating.loop.evaluate, evaluating.predictions.predict
    monkeypatch.setattr(
        evaluating.loop,
        "evaluate",
        lambda *a, **k: seen.append(evaluate(*a, **k)["confusion"].sum()),
    )
    monkeypatch.setattr(
        evaluating.predictions, "predict", lambda *a, **k: seen.append(len(predict(*a, **k)))
    )
    for side in evaluating.sides(work, split):
        assert side.photos_per_step == 9
        side.open()(2)
    assert seen == [9, 9, 9, 9]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_fit_does_the_steps_of_its_two_epochs(work, steps_per_execution):
    model = keras_fit.build(
        work.config,
        work.strategy,
        work.plan.num_classes,
        steps_per_execution=steps_per_execution,
    )
    side = keras_fit.side("fit", model, BATCH, work.batches, steps_per_execution)
    assert side.whole(4) == (4 if steps_per_execution == 1 else 6)
    seconds = side.open()(6)
    assert 0 < seconds < math.inf
    assert model.optimizer.iterations.numpy() == 2 * 6


@pytest.mark.parametrize("flags", [{"backbone": "tiny"}, {"backbone": "small_cnn", "dropout": 0.2}])
def test_fit_trains_the_same_network(folder, flags):
    work = make_work(folder, **flags)
    ours = work.state.classifier.model
    theirs = keras_fit.build(work.config, work.strategy, work.plan.num_classes)

    def shapes(model):
        return sorted(tuple(variable.shape) for variable in model.trainable_variables)

    assert shapes(theirs) == shapes(ours)
    theirs.set_weights(ours.get_weights())
    images = work.inference_resident.batch["image"]
    np.testing.assert_allclose(
        theirs(images, training=False), ours(images, training=False), atol=1e-4
    )


def test_the_notebooks_model_gives_probabilities(work):
    model = keras_fit.build_notebook(work.config, work.strategy, 3, SIZE)
    found = model(tf.random.uniform([4, SIZE, SIZE, 3])).numpy()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    dataset = tf.data.Dataset.from_tensors((tf.zeros([2, SIZE, SIZE, 3]), [1, 2])).repeat()
    keras_fit.side("notebook", model, 2, dataset).open()(2)
    assert model.optimizer.iterations.numpy() == 4


def test_fit_gets_the_photos_that_the_device_augments(folder):
    work = make_work(folder, augment_on="device")
    seen = []

    def augment(images, draws):
        seen.append((images.shape, draws.shape))
        return images

    model = keras_fit.build(work.config, work.strategy, 3, augment=augment)
    keras_fit.side("fit", model, BATCH, work.batches).open()(1)
    assert set(seen) == {((BATCH, SIZE, SIZE, 3), work.resident.batch["draws"].shape)}
