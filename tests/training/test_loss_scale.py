"""The scale of the loss: how it moves, and that a step left out for it leaves all as it was."""

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.training import loss_scale, metrics, multistep, optimizers, steps
from flowers_tpu.training.averages import Averages
from flowers_tpu.training.loss_scale import LossScale
from flowers_tpu.training.options import TrainingOptions
from flowers_tpu.training.state import Progress, TrainState, step_counter
from tests.photos import batch, distributed, small_classifier

pytestmark = pytest.mark.core

CLASSES, BATCH = 3, 8
OTHERS = ("sgd", "adamw", "lamb", "radam", "novograd")


def make_state(strategy, name="sgd", scale=True, backbone="tiny", **options):
    with strategy.scope():
        arithmetic = "float16" if scale else "float32"
        classifier = small_classifier(CLASSES, arithmetic=arithmetic, backbone=backbone)
        given = TrainingOptions(optimizer=name, **options)
        rate = tf.constant(0.01)
        warmup, finetune = (
            optimizers.make_optimizer(given, lambda: rate, variables)
            for variables in (
                classifier.head.trainable_variables,
                steps.trained_in_finetuning(classifier),
            )
        )
        state = TrainState(
            *(classifier, warmup, finetune, step_counter(), Progress(metrics.empty(CLASSES))),
            averages=Averages(classifier.model.variables, 0.5),
            loss_scale=LossScale() if scale else None,
        )
    return state, steps.Objective(given, BATCH)


class Same:
    """An iterator over one and the same distributed batch."""

    def __init__(self, strategy, **options):
        self.batch = distributed(strategy, batch(BATCH, CLASSES, side=32, **options))

    def __iter__(self):
        return self

    def __next__(self):
        return self.batch


def everything(state):
    """What a step that is left out must not change."""
    variables = [*state.classifier.model.variables, *state.finetune_optimizer.variables()]
    variables += state.averages.variables
    return [variable.numpy() for variable in variables]


def changed(before, after):
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_halves_after_a_bad_step_and_doubles_after_many_good_ones(
    make_strategy, replicas, monkeypatch
):
    monkeypatch.setattr(loss_scale, "_GOOD_STEPS", 3)
    strategy = make_strategy(replicas)
    with strategy.scope():
        scale = LossScale()
    found = []
    update = tf.function(scale.update)
    for updates in (True, True, True, False, True, True, True, True):
        update(tf.constant(updates))
        found.append((float(scale.value.numpy()), int(scale.good_steps.numpy())))
    first = 2.0**15
    expected = [(first, 1), (first, 2), (2 * first, 0), (first, 0)]
    assert found == [*expected, (first, 1), (first, 2), (2 * first, 0), (2 * first, 1)]


def test_it_stays_within_1_and_what_float32_holds(monkeypatch):
    monkeypatch.setattr(loss_scale, "_GOOD_STEPS", 1)
    scale = LossScale()
    scale.value.assign(1)
    scale.update(tf.constant(False))
    assert scale.value.numpy() == 1
    scale.value.assign(3e38)
    scale.update(tf.constant(True))
    assert scale.value.numpy() == tf.float32.max


@pytest.mark.parametrize(
    ("name", "backbone", "replicas"),
    [*((name, "tiny", 2) for name in OTHERS), ("adam", "small_cnn", 2), ("adam", "tiny", 1)],
)
def test_gradients_beyond_float16_leave_all_as_it_was(make_strategy, name, backbone, replicas):
    """Two good steps, one that overflows at a scale of 2**100, and one again at the scale before.

    Averages, slots and moving statistics stay too; the step counts, and no loss is lost.
    """
    strategy = make_strategy(replicas)
    state, objective = make_state(strategy, name, backbone=backbone)
    state.loss_scale.value.assign(8)  # at which these networks do not overflow
    train = multistep.compile_train_steps(strategy, state, "finetune", objective)
    iterator = Same(strategy)
    begin = everything(state)
    results = train(iterator, tf.constant(2))
    assert results.finite.numpy().all() and results.updates.numpy().all()
    before = everything(state)
    assert any(changed(begin, before))
    assert state.loss_scale.good_steps.numpy() == 2

    state.loss_scale.value.assign(2.0**100)
    results = train(iterator, tf.constant(1))
    assert results.finite.numpy().all() and not results.updates.numpy().any()
    assert np.isfinite(results.outcomes).all()
    assert not any(changed(before, everything(state)))
    assert state.loss_scale.value.numpy() == 2.0**99
    assert (state.step.numpy(), state.loss_scale.good_steps.numpy()) == (3, 0)

    state.loss_scale.value.assign(8)
    assert train(iterator, tf.constant(1)).updates.numpy().all()
    assert any(changed(before, everything(state)))


@pytest.mark.parametrize("stage", ["warmup", "finetune"])
def test_gradients_are_those_without_a_scale(make_strategy, stage):
    """In float32, where both are exact within rounding: unscaled before clipping and the norm."""
    strategy = make_strategy(2)
    state, _ = make_state(strategy, scale=False)
    objective = steps.Objective(TrainingOptions(clip_norm=0.1, l2=0.1), BATCH)
    gradients_of = getattr(steps, f"{stage}_gradients")
    data = Same(strategy).batch
    seed = tf.constant([0, 1])

    @tf.function
    def gradients(scale):
        return strategy.run(
            lambda b: gradients_of(state.classifier, b, seed, objective, scale), args=(data,)
        )

    statistics = [variable.numpy() for variable in state.classifier.model.variables]
    plain, result = gradients(None)
    for variable, value in zip(state.classifier.model.variables, statistics, strict=True):
        variable.assign(value)
    scaled, result_scaled = gradients(tf.constant(2.0**10))
    local = strategy.experimental_local_results
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(local(a)[0], local(b)[0], rtol=1e-5, atol=1e-8)
    norms = (local(r.gradient_norm)[0] for r in (result, result_scaled))
    np.testing.assert_allclose(*norms, rtol=1e-6)


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_loss_that_is_not_finite_is_still_an_error(make_strategy, on_nan):
    strategy = make_strategy(2)
    state, objective = make_state(strategy, on_nan=on_nan)
    train = multistep.compile_train_steps(strategy, state, "finetune", objective)
    before = everything(state)
    results = train(Same(strategy, weights=[np.inf] * BATCH), tf.constant(1))
    assert not results.finite.numpy().any() and not results.updates.numpy().any()
    assert not any(changed(before, everything(state)))


def test_gradients_that_no_scale_is_to_blame_for_are_an_error(make_strategy):
    strategy = make_strategy(1)
    state, objective = make_state(strategy)
    train = multistep.compile_train_steps(strategy, state, "finetune", objective)
    state.loss_scale.value.assign(1)
    kernel = state.classifier.features.trainable_variables[0]
    kernel.assign(tf.fill(kernel.shape, 1e30))  # of which float16 makes infinity
    results = train(Same(strategy), tf.constant(1))
    assert not results.finite.numpy().any()


def test_both_counters_are_in_the_checkpoint(make_strategy, tmp_path):
    strategy = make_strategy(2)
    state, _ = make_state(strategy)
    state.loss_scale.value.assign(2.0**7)
    state.loss_scale.good_steps.assign(41)
    path = state.checkpoint().save(str(tmp_path / "state"))
    another, _ = make_state(strategy)
    another.checkpoint().restore(path).assert_consumed()
    assert another.loss_scale.value.numpy() == 2.0**7
    assert another.loss_scale.good_steps.numpy() == 41
