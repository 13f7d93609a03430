"""Rates of their own for parts of the model, and parts that are not trained."""

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data.splits import Split
from flowers_tpu.runs.data import Data
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from flowers_tpu.training import multistep
from tests.photos import batch

BATCH, CLASSES, SIZE = 4, 3, 32


def make(strategy, **flags):
    """The state of a run, and one step of fine-tuning on a batch."""
    values = {"image_size": SIZE, "backbone": "small_cnn", "weights": "none", "warmup_epochs": 0}
    values |= {"optimizer": "sgd", "momentum": 0.0, "lr_schedule": "constant", "epochs": 2}
    values |= {"learning_rate": 0.4, "global_batch_size": BATCH}
    facts = Facts("CPU", strategy.num_replicas_in_sync)
    recipe = Recipe.on(Devices(strategy, facts), Spec.of(**values | flags))
    labels = np.arange(8, dtype=np.int32) % CLASSES
    split = Split("train", (), labels.astype(str), labels)
    plan = recipe.plan(Data("", ("a", "b", "c"), {"train": split}))
    state = recipe.state(plan)
    steps = multistep.compile_train_steps(strategy, state, "finetune", plan.objective)
    return state, lambda: steps(batches(strategy), tf.constant(1))


def batches(strategy):
    arrays = batch(BATCH, CLASSES, side=SIZE, seed=1)
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    dataset = dataset.batch(BATCH // strategy.num_replicas_in_sync)
    return iter(strategy.distribute_datasets_from_function(lambda context: dataset))


def moved(variables, before):
    return [v.numpy() - b for v, b in zip(variables, before, strict=True)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_backbone_moves_by_its_own_part_of_the_rate(make_strategy, replicas):
    """With plain gradient descent a step is the rate times the gradient."""
    strategy, steps = make_strategy(replicas), {}
    for factor in (1.0, 0.25):
        state, step = make(strategy, backbone_rate=factor)
        parts = state.classifier.features, state.classifier.head
        before = [[v.numpy() for v in part.trainable_variables] for part in parts]
        step()
        steps[factor] = [
            moved(part.trainable_variables, b) for part, b in zip(parts, before, strict=True)
        ]
    for whole, part in zip(steps[1.0][0], steps[0.25][0], strict=True):
        np.testing.assert_allclose(part, whole / 4, rtol=1e-4, atol=1e-7)
    for whole, part in zip(steps[1.0][1], steps[0.25][1], strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-8)
    assert max(np.abs(v).max() for v in steps[1.0][0]) > 0


def test_a_rate_of_its_own_is_in_the_checkpoint(make_strategy, tmp_path):
    state, step = make(make_strategy(2), backbone_rate=0.5, optimizer="adam")
    step()
    path = state.checkpoint().write(str(tmp_path / "c"))
    other, _ = make(make_strategy(2), backbone_rate=0.5, optimizer="adam")
    other.checkpoint().read(path).assert_consumed()
    slots = state.backbone_optimizer.variables()
    assert len(slots) > 2 * len(state.classifier.features.trainable_variables)
    for a, b in zip(slots, other.backbone_optimizer.variables(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("batch_norm", ["per_replica", "frozen"])
def test_layers_before_the_first_trained_one_stay_as_they_are(make_strategy, batch_norm):
    whole, _ = make(make_strategy(1), batch_norm=batch_norm)
    network = next(
        layer for layer in whole.classifier.features.layers if isinstance(layer, tf.keras.Model)
    )
    names = [layer.name for layer in network.layers if layer.weights]
    first = names[len(names) // 2]
    state, step = make(make_strategy(1), batch_norm=batch_norm, train_from=first)
    network = next(
        layer for layer in state.classifier.features.layers if isinstance(layer, tf.keras.Model)
    )
    before = {v.name: v.numpy() for v in network.variables}
    step()
    begun = False
    for layer in network.layers:
        begun = begun or layer.name == first
        changed = [not np.array_equal(before[v.name], v.numpy()) for v in layer.variables]
        if not begun:
            assert not any(changed), layer.name
        elif layer.trainable_variables:
            assert any(changed), layer.name
    assert begun


def test_a_layer_that_is_not_there_is_named(make_strategy):
    with pytest.raises(RequestError, match=r"--train_from=block_99: no layer .* there are: \w+"):
        make(make_strategy(1), train_from="block_99")
