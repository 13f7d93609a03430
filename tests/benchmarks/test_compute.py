import math
import types

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import compute, inputs, keras_fit
from flowers_tpu.data.augment.draws import NUM_DRAWS
from flowers_tpu.runs.feed import Feed
from flowers_tpu.system.errors import RunError
from flowers_tpu.training import calls, pacing
from flowers_tpu.training.multistep import Results
from tests.benchmarks.benchmarking import BATCH, SIZE, devices_of, make_work


@pytest.fixture(scope="module")
def work(folder):
    """Of one replica and host augmentation; tests may train it."""
    return make_work(folder, steps_per_loop=3)


def weights(part):
    return np.concatenate([variable.numpy().ravel() for variable in part.variables])


@pytest.mark.parametrize("replicas, augment_on", [(1, "host"), (2, "device")])
def test_training_does_the_steps_asked_for(folder, work, make_strategy, replicas, augment_on):
    if replicas > 1:
        devices = devices_of(make_strategy(replicas))
        work = make_work(
            folder, devices, batch_size_per_replica=BATCH // replicas, augment_on=augment_on
        )
    images = work.recipe.strategy.experimental_local_results(work.resident.batch["image"])
    assert [image.shape for image in images] == [(BATCH // replicas, SIZE, SIZE, 3)] * replicas
    assert ("draws" in work.resident.batch) is (augment_on == "device")
    before = weights(work.state.classifier.model)
    side = compute.train_side(work, "train", "finetune", per_call=3)
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
    compute.train_side(work, "warm-up", "warmup", per_call=2).open()(2)
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


def endless_batches(work):
    return inputs.endless_batches(work.recipe, work.recipe.load_data(("train",)))


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
    run = compute.loop_side(work, "the loop", endless_batches(work)).open()
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

    def train_steps(iterator, num_steps):
        steps = int(num_steps)
        now[0] += call_seconds + steps * step_seconds + (0 if done else 20)  # the first compiles
        done.append(steps)
        zeros = tf.zeros([steps])
        true = tf.fill([steps], True)
        return Results(tf.zeros([steps, BATCH, 5]), zeros, true, true, zeros)

    monkeypatch.setattr(pacing, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    work = make_work(folder)
    work.__dict__["train_steps"] = {"finetune": train_steps}
    assert compute.steps_per_call(work) == found
    assert done == counts


def test_a_call_has_the_steps_that_are_asked_for(work):
    assert compute.steps_per_call(work) == 3


def test_the_forward_pass_augments_only_if_the_warm_up_beside_it_does(folder, monkeypatch):
    work = make_work(folder, augment_on="device")
    seen = []

    def prepared(batch):
        seen.append((batch["image"].shape, batch["draws"].shape))
        return batch

    monkeypatch.setattr(Feed, "prepare", property(lambda feed: prepared))
    assert compute.forward_side(work, "forward", 2).open()(1) > 0
    assert not seen
    assert compute.forward_side(work, "like the warm-up", 2, augmented=True).open()(1) > 0
    assert seen == [((BATCH, SIZE, SIZE, 3), (BATCH, NUM_DRAWS))]


def test_the_loop_goes_on_over_epochs_for_the_steps_asked_for(work):
    side = compute.loop_side(work, "loop", endless_batches(work))
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
    split = work.recipe.load_data(("val",)).splits["val"]
    seen = []

    def spied(module, name, photos):
        function = getattr(module, name)

        def spy(*arguments):
            *_, last = values = list(function(*arguments))
            seen.append(photos(last, values))
            return iter(values)

        monkeypatch.setattr(module, name, spy)

    spied(calls, "evaluate", lambda last, _: last.sums["confusion"].sum())
    spied(compute.predictions, "predict", lambda _, logits: sum(map(len, logits)))
    for side in compute.split_sides(work, split):
        assert side.photos_per_step == 9
        side.open()(2)
    assert seen == [9, 9, 9, 9]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_fit_does_the_steps_of_its_two_epochs(work, steps_per_execution):
    model = keras_fit.build(work.recipe, 3, steps_per_execution=steps_per_execution)
    side = keras_fit.side("fit", model, BATCH, work.batches, steps_per_execution)
    assert side.whole(4) == (4 if steps_per_execution == 1 else 6)
    seconds = side.open()(6)
    assert 0 < seconds < math.inf
    assert model.optimizer.iterations.numpy() == 2 * 6


@pytest.mark.parametrize("flags", [{"backbone": "tiny"}, {"backbone": "small_cnn", "dropout": 0.2}])
def test_fit_trains_the_same_network(folder, flags):
    work = make_work(folder, **flags)
    ours = work.state.classifier.model
    theirs = keras_fit.build(work.recipe, work.plan.num_classes)

    def shapes(model):
        return sorted(tuple(variable.shape) for variable in model.trainable_variables)

    assert shapes(theirs) == shapes(ours)
    theirs.set_weights(ours.get_weights())
    images = work.inference_resident.batch["image"]
    np.testing.assert_allclose(
        theirs(images, training=False), ours(images, training=False), atol=1e-4
    )


def test_the_notebooks_model_gives_probabilities(work):
    model = keras_fit.build_notebook(work.recipe, 3)
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

    model = keras_fit.build(work.recipe, 3, augment=augment)
    keras_fit.side("fit", model, BATCH, work.batches).open()(1)
    assert set(seen) == {((BATCH, SIZE, SIZE, 3), work.resident.batch["draws"].shape)}
