import pytest

from flowers_tpu.benchmarks import scaling
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.system.errors import RequestError
from tests.benchmarks.benchmarking import BATCH, make_recipe


def test_replicas_share_the_work_or_each_has_its_own():
    assert scaling.replica_batches(16, [1, 2, 8], constant="per replica") == {1: 16, 2: 16, 8: 16}
    assert scaling.replica_batches(16, [1, 2, 8], constant="in total") == {1: 128, 2: 64, 8: 16}
    with pytest.raises(RequestError, match="3 replicas do not divide the global batch of 64"):
        scaling.replica_batches(16, [1, 3, 4], constant="in total")


def test_rows_of_a_sweep_over_replicas(folder):
    recipe = make_recipe(folder, steps_per_loop=1)
    sides = scaling.replica_sides(recipe, recipe.load_data(("train",)), {1: 8, 2: 4})
    assert [side.photos_per_step for side in sides] == [8, 8]
    rates = {"1 replica": [80.0, 160.0], "2 replicas": [40.0, 120.0]}
    found = {row.key[1:]: row.values for row in scaling.replica_rows("g", rates, sides)}
    assert found["2 replicas", "images/s"] == (40.0, 120.0)
    assert found["1 replica", "steps/s per replica"] == (10.0, 20.0)
    # Each of the two takes part in every step.
    assert found["2 replicas", "steps/s per replica"] == (5.0, 15.0)
    assert found["efficiency, 2 replicas", "x"] == (0.5, 0.75)
    assert ("efficiency, 1 replica", "x") not in found


def test_sweeps_change_the_run(folder, monkeypatch):
    """Batches, sizes and precisions are what the model gets."""
    works = {}

    class Sides(Bench):
        def rates(self, title, sides):
            return {side.name: [side.photos_per_step * 10.0] for side in sides}

    train_side = scaling.compute.train_side

    def spy(work, name, *rest):
        works[name] = work
        return train_side(work, name, *rest)

    monkeypatch.setattr(scaling.compute, "train_side", spy)
    recipe = make_recipe(folder, steps_per_loop=1)
    options = BenchmarkOptions(
        batch_sweep="4,16", image_size_sweep="32,64", precision_sweep="float32,bfloat16"
    )
    bench = Sides(recipe, options, recipe.load_data(("train",)))
    found = {row.key: row.values for flag in options.sweeps for row in scaling.SWEEPS[flag](bench)}
    assert list(works) == ["float32", "bfloat16", "32 px", "64 px", "batch 4", "batch 16"]
    for name, batch, size in (("32 px", BATCH, 32), ("64 px", BATCH, 64), ("batch 16", 16, 32)):
        assert works[name].resident.batch["image"].shape == (batch, size, size, 3)
    for name in ("float32", "bfloat16"):
        network = works[name].state.classifier.features.get_layer("tiny")
        assert network.output.dtype == name
    assert found["batch per replica", "batch 4", "steps/s"] == (10.0,)
    assert found["batch per replica", "batch 16", "steps/s"] == (10.0,)
    cost = "cost of a photo: batch 16 / cost of a photo: batch 4"
    assert found["batch per replica", cost, "x"] == (0.25,)
