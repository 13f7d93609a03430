"""Runs of a tiny network to measure, for tests."""

from flowers_tpu.benchmarks import work
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import Devices, one_cpu_replica
from flowers_tpu.system.facts import Facts

SIZE, BATCH = 32, 8
TINY = {"backbone": "tiny", "weights": "none", "image_size": SIZE, "shuffle_buffer": 8}


def make_recipe(folder, devices=None, **flags):
    """A run on the photos of a folder, by default on one replica."""
    flags = {**TINY, "data_dir": str(folder), "batch_size_per_replica": BATCH, **flags}
    return Recipe.on(devices or one_cpu_replica(), Spec.of(**flags))


def make_work(folder, devices=None, **flags):
    """The steps of such a run."""
    recipe = make_recipe(folder, devices, **flags)
    return work.make_work(recipe, recipe.load_data())


def devices_of(strategy):
    """The replicas of a strategy on the CPU."""
    return Devices(strategy, Facts("CPU", strategy.num_replicas_in_sync))
