import pytest
import tensorflow as tf
from benchmarking import BATCH, resolved

from flowers_tpu.benchmarks import scaling
from flowers_tpu.runs import recipe
from flowers_tpu.system.errors import RequestError


def test_replicas_share_the_work_or_each_has_its_own():
    assert scaling.replica_batches(16, [1, 2, 8], constant="per replica") == {1: 16, 2: 16, 8: 16}
    assert scaling.replica_batches(16, [1, 2, 8], constant="in total") == {1: 128, 2: 64, 8: 16}
    with pytest.raises(RequestError, match="3 replicas do not divide the global batch of 64"):
        scaling.replica_batches(16, [1, 3, 4], constant="in total")


def test_rows_of_a_sweep_over_replicas(folder):
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    data = recipe.load_data(config, ("train",))
    sides = scaling.replica_sides(config, data, {1: 8, 2: 4})
    assert {count: side.photos_per_step for count, side in sides.items()} == {1: 8, 2: 8}
    rates = {"1 replica": [80.0, 160.0], "2 replicas": [40.0, 120.0]}
    found = {row.key[1:]: row.values for row in scaling.replica_rows("g", rates, sides)}
    assert found["2 replicas", "images/s"] == (40.0, 120.0)
    assert found["1 replica", "steps/s per replica"] == (10.0, 20.0)
    # Each of the two takes part in every step.
    assert found["2 replicas", "steps/s per replica"] == (5.0, 15.0)
    assert found["efficiency, 2 replicas", "x"] == (0.5, 0.75)
    assert ("efficiency, 1 replica", "x") not in found


def test_rows_of_a_sweep_over_batches(folder):
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    data = recipe.load_data(config, ("train",))
    sides = scaling.batch_sides(config, tf.distribute.get_strategy(), data, [4, 16])
    rates = {"batch 4": [40.0], "batch 16": [80.0]}
    found = {row.key[1:]: row.values for row in scaling.cost_rows("g", rates, sides)}
    assert found["batch 4", "steps/s"] == (10.0,)
    assert found["batch 16", "steps/s"] == (5.0,)
    assert found["cost of a photo: batch 16 / cost of a photo: batch 4", "x"] == (0.5,)


def test_sizes_and_precisions_are_what_the_model_gets(folder, monkeypatch):
    monkeypatch.setattr(scaling.compute, "train_side", lambda work, name, *_: (name, work))
    config = resolved(folder, tf.distribute.get_strategy(), steps_per_loop=1)
    strategy, data = tf.distribute.get_strategy(), recipe.load_data(config, ("train",))
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
