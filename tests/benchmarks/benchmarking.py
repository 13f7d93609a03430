"""Benchmarks of a tiny network, whole or in parts, for tests."""

import json

import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import compute
from flowers_tpu.benchmarks.options import Options
from flowers_tpu.commands import benchmark
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system.devices import Devices

SIZE, BATCH = 32, 8

QUICK = {"rounds": 2, "seconds_per_round": 0.01}


def benchmark(flags, folder, **options):
    """Runs it; returns the content of its JSON, and the rows by (name, unit)."""
    options = {**vars(Options(**QUICK)), "output_dir": str(folder), **options}
    benchmark.benchmark(Config(**flags), **options)
    content = json.loads((folder / "benchmark.json").read_text())
    return content, {(row["name"], row["unit"]): row for row in content["results"]}


def of(content, group, name, unit):
    """The rounds of a row whose group begins so."""
    (row,) = (
        row for row in content["results"]
        if row["group"].startswith(group) and (row["name"], row["unit"]) == (name, unit)
    )  # fmt: skip
    assert row["median"] == pytest.approx(sum(row["rounds"]) / len(row["rounds"]))
    return row["rounds"]


def resolved(folder, strategy, **flags):
    """A configuration on the photos of a folder."""
    flags = {"backbone": "tiny", "weights": "none", "image_size": SIZE, **flags}
    config = Config(data_dir=str(folder), **{"global_batch_size": BATCH, **flags})
    return recipe.resolve(config, Devices(strategy, "CPU", strategy.num_replicas_in_sync))


def make_work(folder, strategy=None, **flags):
    """The steps of a configuration, by default on one replica."""
    strategy = strategy or tf.distribute.get_strategy()
    config = resolved(folder, strategy, **flags)
    return compute.make_work(config, strategy, recipe.load_data(config))
