import math

import numpy as np
import photos
import pytest
import tensorflow as tf

from flowers_tpu import parts
from flowers_tpu.benchmarks import compute, end_to_end, evaluating, inputs, keras_fit, scaling
from flowers_tpu.config import Config
from flowers_tpu.distribution import Devices
from flowers_tpu.errors import RequestError, RunError

SIZE, BATCH = 32, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write_data_set(tmp_path_factory.mktemp("steps") / "d", train=20, val=9)


def resolved(folder, strategy, **flags):
    flags = {"backbone": "tiny", "weights": "none", "image_size": SIZE, **flags}
    config = Config(data_dir=str(folder), global_batch_size=BATCH, **flags)
    return parts.resolve(config, Devices(strategy, "CPU", strategy.num_replicas_in_sync))


def make_work(folder, strategy=None, **flags):
    strategy = strategy or tf.distribute.get_strategy()
    config = resolved(folder, strategy, **flags)
    return compute.make_work(config, strategy, parts.load_data(config))


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


def test_steps_that_are_not_finite_are_not_timed(work):
    kernel = work.state.classifier.head.trainable_variables[0]
    before = kernel.numpy()
    kernel.assign(tf.fill(kernel.shape, math.nan))
    with pytest.raises(RunError, match="train: loss or gradients are not finite"):
        compute.train_side(work, "train", "finetune", 4).open()(4)
    kernel.assign(before)


def test_the_loop_goes_on_over_epochs_for_the_steps_asked_for(work):
    batches = inputs.endless_batches(work.config, work.strategy, parts.load_data(work.config))
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
    split = parts.load_data(work.config).splits["val"]
    seen = []
    evaluate, predict = evaluating.loop.evaluate, evaluating.predictions.predict
    monkeypatch.setattr(
        evaluating.loop, "evaluate", lambda *a, **k: seen.append(evaluate(*a, **k)["weight"])
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


def test_replicas_share_the_work_or_each_has_its_own():
    assert scaling.replica_batches(16, [1, 2, 8], constant="per replica") == {1: 16, 2: 16, 8: 16}
    assert scaling.replica_batches(16, [1, 2, 8], constant="in total") == {1: 128, 2: 64, 8: 16}
    with pytest.raises(RequestError, match="3 replicas do not divide the global batch of 64"):
        scaling.replica_batches(16, [1, 3, 4], constant="in total")


def test_rows_of_a_sweep_over_replicas(folder):
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    data = parts.load_data(config, ("train",))
    sides = scaling.replica_sides(config, data, {1: 8, 2: 4})
    assert {count: side.photos_per_step for count, side in sides.items()} == {1: 8, 2: 8}
    rates = {"1 replica": [80.0, 160.0], "2 replicas": [40.0, 120.0]}
    found = {row.key[1:]: row.values for row in scaling.replica_rows("g", rates, sides)}
    assert found["2 replicas", "images/s"] == (40.0, 120.0)
    assert found["1 replica", "steps/s per replica"] == (10.0, 20.0)
    assert found["2 replicas", "steps/s per replica"] == (2.5, 7.5)
    assert found["2 replicas / 1 replica", "x"] == (0.5, 0.75)


def test_rows_of_a_sweep_over_batches(folder):
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    data = parts.load_data(config, ("train",))
    sides = scaling.batch_sides(config, tf.distribute.get_strategy(), data, [4, 16])
    rates = {"batch 4": [40.0], "batch 16": [80.0]}
    found = {row.key[1:]: row.values for row in scaling.cost_rows("g", rates, sides)}
    assert found["batch 4", "steps/s"] == (10.0,)
    assert found["batch 16", "steps/s"] == (5.0,)
    assert found["cost of a photo: batch 16 / cost of a photo: batch 4", "x"] == (0.5,)


def test_sizes_and_precisions_are_what_the_model_gets(folder, monkeypatch):
    monkeypatch.setattr(scaling.compute, "train_side", lambda work, name, *_: (name, work))
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    strategy, data = tf.distribute.get_strategy(), parts.load_data(config, ("train",))
    works = dict(
        [
            *scaling.size_sides(config, strategy, data, [32, 64]),
            *scaling.precision_sides(config, strategy, data, ["float32", "bfloat16"]),
        ]
    )
    assert list(works) == ["32 px", "64 px", "float32", "bfloat16"]
    assert works["32 px"].resident.batch["image"].shape == (BATCH, 32, 32, 3)
    assert works["64 px"].resident.batch["image"].shape == (BATCH, 64, 64, 3)
    for name in ("float32", "bfloat16"):
        network = works[name].state.classifier.features.get_layer("tiny")
        assert network.output.dtype == name
