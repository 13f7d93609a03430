"""`--accelerator`: its parts, arithmetic and files, with CPU replicas in a GPU's place."""

import json

import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import accelerator
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.commands import benchmark
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from tests.benchmarks.benchmarking import TINY, make_recipe

T4, A100 = Facts("GPU", 2, 1, (7, 5)), Facts("GPU", 2, 1, (8, 0))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The smallest network in place of the three; nothing else becomes deterministic for it."""
    monkeypatch.setattr(accelerator, "NETWORKS", ("tiny",))
    asked = []
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: asked.append("deterministic")
    )
    return asked


@pytest.fixture
def bench(folder, make_strategy):
    flags = {"steps_per_loop": 2, "dropout": 0.3, "jit": "off"}
    recipe = make_recipe(folder, Devices(make_strategy(2), T4), **flags)
    return Bench(recipe, BenchmarkOptions(accelerator=True), recipe.load_data(("train",)))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (T4, ("float32", "float16")),
        (A100, ("float32", "bfloat16")),
        (Facts("TPU", 8), ("float32", "bfloat16")),
        (Facts("CPU"), ("float32", "bfloat16")),
    ],
)
def test_the_two_precisions_of_a_device(facts, expected):
    assert accelerator.precisions(facts) == expected


def test_a_network_is_measured_with_and_without_xla_and_beside_fit(bench, counted):
    found = {row.key[1:]: row.values for row in accelerator.network(bench, "tiny")}
    sides = [
        f"{precision}{way}"
        for precision in ("float32", "float16")
        for way in (", jit off", ", jit on", ", keras_fit")
    ]
    rates = [24.0, 48.0]
    for number, side in enumerate(sides, start=1):
        assert found[side, "images/s"] == tuple(number * rate for rate in rates)
    compiled = [name for name, unit in found if unit == "s to compile"]
    assert compiled == [side for side in sides if "jit" in side]
    assert all(found[name, "s to compile"][0] > 0 for name in compiled)
    assert found["float16, jit on / float16, keras_fit", "x"] == (5 / 6, 5 / 6)


def test_on_a_tpu_nothing_is_chosen_about_xla(folder, make_strategy, counted):
    recipe = make_recipe(folder, Devices(make_strategy(2), Facts("TPU", 2)), steps_per_loop=2)
    bench = Bench(recipe, BenchmarkOptions(accelerator=True), recipe.load_data(("train",)))
    found = [row.name for row in accelerator.network(bench, "tiny") if row.unit == "images/s"]
    assert found == [
        "float32", "float32, keras_fit", "bfloat16", "bfloat16, keras_fit",
    ]  # fmt: skip


def test_losses_are_those_of_the_cpu(bench):
    (row,) = accelerator.same_as_cpu(bench)
    assert row.values[0] < 1e-5


def test_losses_that_are_not_those_of_the_cpu_are_told(bench, monkeypatch):
    losses = accelerator._losses
    monkeypatch.setattr(
        accelerator,
        "_losses",
        lambda recipe, data: losses(recipe, data) * (1.5 if recipe.facts.kind == "CPU" else 1),
    )
    (row,) = accelerator.same_as_cpu(bench)
    assert row.values[0] == pytest.approx(1 / 3, rel=1e-4)


def test_a_resume_is_compared_bit_for_bit(bench, tiny, monkeypatch):
    (row,) = accelerator.resume(bench)
    assert row.values == (0,)
    assert tiny == ["deterministic"]
    # Seen if the resumed part begins with other weights than were saved.
    monkeypatch.setattr(accelerator.Checkpoints, "restore_latest", lambda self: True)
    (row,) = accelerator.resume(bench)
    assert row.values[0] > 100


def test_a_part_that_fails_is_left_out_and_the_others_are_written(
    folder, tmp_path, capsys, counted, monkeypatch
):
    def out_of_memory(bench, name):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

    monkeypatch.setattr(accelerator, "network", out_of_memory)
    # The others alone are tested above.
    rows = {name: [Row(name, "", "x", (1.0,))] for name in ("input_limit", "same_as_cpu", "resume")}
    for name, found in rows.items():
        monkeypatch.setattr(accelerator, name, lambda bench, found=found: found)
    flags = {**TINY, "data_dir": str(folder), "batch_size_per_replica": 4, "steps_per_loop": 2}
    options = BenchmarkOptions(accelerator=True, rounds=2, output_dir=str(tmp_path))
    benchmark.benchmark(Spec.of(**flags), options)
    assert "tiny is left out: OOM when allocating\n" in capsys.readouterr().out
    written = json.loads((tmp_path / "benchmark.json").read_text())["results"]
    groups = [row["group"] for row in written]
    assert groups == list(rows)


def test_it_goes_alone():
    assert BenchmarkOptions(accelerator=True).measures == []
    for more in ({"against": "keras_fit"}, {"batch_sweep": "1,2"}):
        with pytest.raises(RequestError, match="--accelerator measures parts of its own"):
            BenchmarkOptions(accelerator=True, **more)
