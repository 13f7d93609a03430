"""What the measures make of the rates of their sides."""

import sys
import types
from unittest import mock

import psutil
import pytest

from flowers_tpu.benchmarks import compute, measures, torch_side
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import MEASURES, BenchmarkOptions
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RunError
from flowers_tpu.system.facts import Facts
from tests.benchmarks.benchmarking import devices_of, make_recipe


def measured(recipe, **options):
    """The rounds of all rows that are asked for, by group, name and unit."""
    options = BenchmarkOptions(**options)
    bench = Bench(recipe, options, recipe.load_data(("train", "val")))
    rows = [row for measure in measures.chosen(options) for row in measure(bench)]
    found = {row.key: list(row.values) for row in rows}
    assert len(found) == len(rows)  # --compare_to pairs them by it
    return found


def named(rows):
    """The same by name and unit alone."""
    return {(name, unit): values for (_, name, unit), values in rows.items()}


@pytest.fixture
def recipe(folder):
    return make_recipe(folder, batch_size_per_replica=4, steps_per_loop=2)


FED, FIT = "train, fed by tf.data", "keras_fit, 1 step per call"


def test_steps(recipe, counted):
    rows = named(measured(recipe, measure="step", against="keras_fit"))
    # Sides in order: train, warm-up, forward, evaluation, prediction, fed, fit, fit.
    assert rows["train", "images/s"] == [24, 48]
    assert rows["train", "steps/s"] == [6, 12]
    assert rows["steps per call", "steps"] == [2]
    assert rows["evaluation / forward", "x"] == pytest.approx([4 / 3, 4 / 3])
    assert rows["time of warm-up / forward", "x"] == [1.5, 1.5]
    assert rows[f"{FED} / {FIT}", "x"] == pytest.approx([6 / 7, 6 / 7])
    assert rows[f"{FED} / keras_fit, equal steps per call", "x"] == [0.75, 0.75]


def test_input(recipe, counted):
    rows = named(measured(recipe, measure="input", against="notebook"))
    # notebook, decode, host, device, records, pixels.
    assert rows["host augments / notebook", "x"] == [3, 3]
    assert rows["device augments, pixels cached / decode", "x"] == [3, 3]
    assert ("filling the cache: pixels", "s") in rows


def test_the_loop(recipe, counted):
    rows = named(measured(recipe, measure="loop", against="keras_fit,notebook"))
    # loop, step alone, input alone, these two with cached pixels, fit, fit, notebook. On a CPU the
    # parts take turns: at 48 and 72 photos/s alone, a photo takes 1/48 + 1/72 s.
    assert rows["efficiency", "x"] == pytest.approx([24 * (1 / 48 + 1 / 72)] * 2)
    cached = [96 * (1 / 48 + 1 / 120)] * 2
    assert rows["efficiency, cache=pixels", "x"] == pytest.approx(cached)
    assert rows["loop / notebook", "x"] == [1 / 8, 1 / 8]
    assert rows["loop, cache=pixels / notebook", "x"] == [0.5, 0.5]
    assert rows[f"loop / {FIT}", "x"] == pytest.approx([1 / 6, 1 / 6])
    assert rows["loop / keras_fit, equal steps per call", "x"] == pytest.approx([1 / 7, 1 / 7])


def test_evaluation_is_of_the_validation_split(recipe, counted):
    rows = measured(recipe, measure="evaluation")
    assert rows["the whole split val, 9 photos", "prediction", "images/s"] == [48, 96]


def test_every_replica_takes_every_step_and_has_its_share_of_the_photos(
    folder, make_strategy, counted
):
    recipe = make_recipe(folder, devices_of(make_strategy(2)), batch_size_per_replica=4)
    rows = named(measured(recipe.changed(steps_per_loop=2), measure="step"))
    # 24 and 48 photos/s, eight a step.
    assert rows["train", "steps/s"] == [3, 6]
    assert rows["train", "steps/s per replica"] == [3, 6]
    assert rows["train", "images/s per replica"] == [12, 24]


def test_if_the_loop_does_one_step_per_call_fit_is_measured_once(recipe, capsys, counted):
    recipe = recipe.changed(steps_per_loop=1, label_smoothing=0.25)
    rows = named(measured(recipe, measure="step", against="keras_fit"))
    equal, single = (f"keras_fit, {n} per call" for n in ("equal steps", "1 step"))
    assert rows[equal, "images/s"] == rows[single, "images/s"] == [168, 336]
    assert "keras_fit goes without --label_smoothing=0.25\n" in capsys.readouterr().out


def test_on_a_tpu(folder, capsys, monkeypatch, counted):
    tpu = one_cpu_replica(Facts("TPU"))
    recipe = make_recipe(folder, tpu, steps_per_loop=2, precision="float32")
    forward_side = mock.Mock(wraps=compute.forward_side)
    monkeypatch.setattr(compute, "forward_side", forward_side)
    rows = measured(recipe, measure="step,loop,memory")
    # The sixth side is the forward pass of what the device augments, as it does in the warm-up.
    assert named(rows)["time of warm-up / augmentation and forward", "x"] == [3, 3]
    assert forward_side.call_args.args[1] == "augmentation and forward"
    assert forward_side.call_args.kwargs == {"augmented": True}
    # The parts work beside each other: of 48 and 72 photos/s, the slower one decides.
    assert rows["loop", "efficiency", "x"] == [0.5, 0.5]
    out = capsys.readouterr().out
    assert "memory is left out: it starts a process, and this one has the TPU" in out


def test_beside_pytorch(recipe, tmp_path, capsys, monkeypatch, counted):
    worker = tmp_path / "worker.py"
    worker.write_text("print('2.5.0', flush=True)\ninput()\n")
    monkeypatch.setattr(torch_side, "_WORKER", str(worker))
    rows = named(
        measured(
            recipe.changed(dropout=0.25, l2=0.5),
            measure="step",
            against="torch",
            torch_python=sys.executable,
        )
    )
    # They are the sixth and seventh side.
    assert rows["torch float32", "images/s"] == [144, 288]
    assert rows["train / torch float32", "x"] == pytest.approx([1 / 6, 1 / 6])
    assert rows["train / torch bfloat16", "x"] == pytest.approx([1 / 7, 1 / 7])
    assert "torch goes without --dropout=0.25, --l2=0.5\n" in capsys.readouterr().out


def test_what_does_not_fit_into_memory_is_left_out(recipe, capsys, monkeypatch, counted):
    # Twenty photos are 61 kB of pixels; the notebook's buffer takes 25 MB.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=50_000))
    monkeypatch.setattr(measures.memory, "peak", lambda *_: {"import": 1e6, "peak": 2e6})
    rows = named(measured(recipe, measure="input,loop,memory", against="notebook", many_photos=20))
    assert ("device augments, records cached", "images/s") in rows
    assert ("input alone", "images/s") in rows and ("input, ours", "MB") in rows
    assert not any("pixels" in name or "notebook" in name for name, _ in rows)
    out = capsys.readouterr().out
    for what in ("input, device augments, pixels cached", "loop, cache=pixels"):
        assert f"{what} is left out: --cache=pixels needs" in out
    for measure in ("input", "loop", "memory"):
        assert f"{measure}, notebook is left out: --against=notebook: its shuffle buffer" in out


def test_memory_is_of_the_run_and_of_many_photos(recipe, monkeypatch):
    seen = []

    def peak(work, flags):
        recipe_of = recipe.changed(**flags)
        size = recipe_of.load_data(("train",)).splits["train"].size
        seen.append((work, recipe_of.spec.data.cache, size))
        return {"import": 3e6, "peak": 6e6 if work == "ours" else 8e6}

    monkeypatch.setattr(measures.memory, "peak", peak)
    recipe = recipe.changed(cache="records")
    rows = named(measured(recipe, measure="memory", against="notebook", many_photos=50))
    assert seen == [("training", "records", 20), ("notebook", "none", 50), ("ours", "none", 50)]
    assert rows["TensorFlow imported", "MB"] == [3]
    assert rows["training", "MB"] == [8] and rows["input, ours", "MB"] == [6]
    assert rows["input, ours / input, notebook", "x"] == [0.75]


def test_the_last_words_of_a_process_are_its_error(monkeypatch):
    program = types.SimpleNamespace(returncode=1, stderr="a warning\nout of memory\n", stdout="")
    monkeypatch.setattr(measures.memory.subprocess, "run", lambda *_, **__: program)
    with pytest.raises(RunError, match="memory of ours: the process ended with: out of memory"):
        measures.memory.peak("ours", {})


def test_sweeps(recipe, counted):
    rows = named(
        measured(
            recipe,
            measure="",
            replicas_sweep="1,2",
            batch_sweep="4,8",
            precision_sweep="float32,bfloat16",
        )
    )
    # In all: the two of 8 photos a step, which stand last.
    assert rows["2 replicas", "steps/s per replica"] == [48 / 8, 96 / 8]
    assert rows["efficiency, 2 replicas", "x"] == [2, 2]
    assert rows["bfloat16 / float32", "x"] == [2, 2]
    assert rows["cost of a photo: batch 8 / cost of a photo: batch 4", "x"] == [0.5, 0.5]


@pytest.mark.slow
def test_everything_for_real(recipe):
    rows = measured(
        recipe,
        measure=",".join(MEASURES),
        against="keras_fit,notebook",
        many_photos=40,
        rounds=2,
        seconds_per_round=0.01,
        replicas_sweep="1,2",
        batch_sweep="4,8",
        image_size_sweep="32,64",
        precision_sweep="float32,bfloat16",
    )
    memory = {name: values[0] for (_, name, unit), values in rows.items() if unit == "MB"}
    assert memory["training"] > memory["TensorFlow imported"] > 100
    assert memory["input, notebook"] > 100 and memory["input, ours"] > 100
    for (_, _, unit), values in rows.items():
        if unit in ("images/s", "x"):
            assert len(values) in (1, 2) and min(values) > 0
