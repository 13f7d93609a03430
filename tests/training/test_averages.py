"""The exponential average of weights, against NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.training import metrics, multistep, optimizers
from flowers_tpu.training.averages import Averages
from flowers_tpu.training.options import TrainingOptions
from flowers_tpu.training.state import Progress, TrainState, step_counter
from flowers_tpu.training.steps import Objective
from tests.photos import batch, linear_classifier

pytestmark = pytest.mark.core

CLASSES, DECAY = 3, 0.3


def make(strategy, **options):
    """A state with averages, and its compiled steps."""
    options = TrainingOptions(optimizer="sgd", **options)
    with strategy.scope():
        classifier = linear_classifier(CLASSES, 2)
        step = step_counter()
        both = [
            optimizers.make_optimizer(options, lambda: tf.constant(0.05), part.trainable_variables)
            for part in (classifier.head, classifier.model)
        ]
        progress = Progress(metrics.empty(CLASSES))
        averages = Averages(classifier.model.variables, DECAY)
        state = TrainState(classifier, *both, step, progress, averages)
    objective = Objective(options, photos_per_update=8)
    return state, multistep.compile_train_steps(strategy, state, "finetune", objective)


def batches(strategy, count, bad=None):
    arrays = [batch(8, CLASSES, seed=number) for number in range(count)]
    if bad is not None:
        arrays[bad]["weight"][0] = np.inf
    stacked = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    local = 8 // strategy.num_replicas_in_sync
    dataset = tf.data.Dataset.from_tensor_slices(stacked).batch(local, drop_remainder=True)
    return iter(strategy.distribute_datasets_from_function(lambda context: dataset))


def values(variables):
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_three_steps_average_as_numpy_does(make_strategy, replicas):
    strategy = make_strategy(replicas)
    state, train_steps = make(strategy)
    iterator, expected = batches(strategy, 3), values(state.classifier.model.variables)
    for count in range(3):
        train_steps(iterator, tf.constant(1))
        kept = np.float32(min(DECAY, (1 + count) / (10 + count)))
        now = values(state.classifier.model.variables)
        expected = [kept * a + (1 - kept) * v for a, v in zip(expected, now, strict=True)]
    assert not np.allclose(expected[0], now[0])
    for average, value in zip(state.averages.values, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-5, atol=1e-7)
        for copy in strategy.experimental_local_results(average):
            np.testing.assert_array_equal(copy.numpy(), average.numpy())
    assert state.averages.count.numpy() == 3


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_step_that_is_left_out_does_not_enter(make_strategy, replicas):
    strategy = make_strategy(replicas)
    state, train_steps = make(strategy, on_nan="skip")
    iterator = batches(strategy, 3, bad=1)
    train_steps(iterator, tf.constant(1))
    before = values(state.averages.values)
    results = train_steps(iterator, tf.constant(1))
    assert not results.finite.numpy().any()
    for a, b in zip(before, values(state.averages.values), strict=True):
        np.testing.assert_array_equal(a, b)
    assert state.averages.count.numpy() == 1
    train_steps(iterator, tf.constant(1))
    assert state.averages.count.numpy() == 2


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_averages_take_the_place_of_the_weights_for_a_while(make_strategy, replicas):
    strategy = make_strategy(replicas)
    state, train_steps = make(strategy)
    train_steps(batches(strategy, 2), tf.constant(2))
    raw, averages = values(state.classifier.model.variables), values(state.averages.values)
    with pytest.raises(KeyError), state.averaged():
        for a, b in zip(values(state.classifier.model.variables), averages, strict=True):
            np.testing.assert_array_equal(a, b)
        raise KeyError("the weights come back all the same")
    for a, b in zip(values(state.classifier.model.variables), raw, strict=True):
        np.testing.assert_array_equal(a, b)
    with dataclasses.replace(state, averages=None).averaged():
        np.testing.assert_array_equal(values(state.classifier.model.variables)[0], raw[0])


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_restored_state_goes_on_bit_for_bit(make_strategy, replicas, tmp_path):
    strategy = make_strategy(replicas)
    state, train_steps = make(strategy)
    iterator = batches(strategy, 4)
    train_steps(iterator, tf.constant(2))
    path = state.checkpoint().write(str(tmp_path / "c"))
    train_steps(iterator, tf.constant(2))
    other, other_steps = make(strategy)
    other.checkpoint().read(path).assert_consumed()
    iterator = batches(strategy, 4)
    for _ in range(2):
        next(iterator)
    other_steps(iterator, tf.constant(2))
    for a, b in zip(
        [*state.averages.values, *state.classifier.model.variables],
        [*other.averages.values, *other.classifier.model.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
