"""What a benchmark makes of the rates it measures."""

import sys
import types
from unittest import mock

import pandas as pd
import psutil
import pytest
import tensorflow as tf
from benchmarking import benchmark, of

from flowers_tpu.benchmarks import compute, measures, torch_side
from flowers_tpu.benchmarks.options import MEASURES
from flowers_tpu.commands import benchmark
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError


def test_what_follows_from_the_rates(flags, tmp_path, capsys, counted):
    content, rows = benchmark(
        flags, tmp_path, measure="step,input,loop,evaluation", against="keras_fit,notebook"
    )

    def rounds_of(*row):
        return of(content, *row)

    # Sides in order: train, warm-up, forward, evaluation, prediction, fed, fit, fit.
    assert rounds_of("step", "train", "images/s") == [24, 48]
    assert rounds_of("step", "train", "steps/s") == [6, 12]
    assert rounds_of("step", "steps per call", "steps") == [2]
    assert rounds_of("step", "evaluation / forward", "x") == pytest.approx([4 / 3, 4 / 3])
    assert rounds_of("step", "time of warm-up / forward", "x") == [1.5, 1.5]
    fed, fit = "train, fed by tf.data", "keras_fit, 1 step per call"
    assert rounds_of("step", f"{fed} / {fit}", "x") == pytest.approx([6 / 7, 6 / 7])
    assert rounds_of("step", f"{fed} / keras_fit, equal steps per call", "x") == [0.75, 0.75]
    # The one convolution and the head are nearly all of a photo's FLOPs.
    (flops,) = rounds_of("step", "forward", "GFLOP per image")
    assert flops * 1e9 == pytest.approx(2 * 27 * 4 * 4 * 8 + 2 * 8 * 3, rel=0.1)
    assert rounds_of("step", "forward", "GFLOP/s") == pytest.approx([72 * flops, 144 * flops])
    assert not any(row["unit"] == "of peak (MFU)" for row in content["results"])
    # notebook, decode, host, device, records, pixels.
    assert rounds_of("input", "host augments / notebook", "x") == [3, 3]
    assert rounds_of("input", "device augments, pixels cached / decode", "x") == [3, 3]
    assert ("filling the cache: pixels", "s") in rows
    # loop, step alone, input alone, these two with cached pixels, fit, fit, notebook. On a CPU the
    # parts take turns: at 48 and 72 photos/s alone, a photo takes 1/48 + 1/72 s.
    assert rounds_of("loop", "efficiency", "x") == pytest.approx([24 * (1 / 48 + 1 / 72)] * 2)
    cached = [96 * (1 / 48 + 1 / 120)] * 2
    assert rounds_of("loop", "efficiency, cache=pixels", "x") == pytest.approx(cached)
    assert rounds_of("loop", "loop / notebook", "x") == [1 / 8, 1 / 8]
    assert rounds_of("loop", "loop, cache=pixels / notebook", "x") == [0.5, 0.5]
    assert rounds_of("loop", f"loop / {fit}", "x") == pytest.approx([1 / 6, 1 / 6])
    equal = "loop / keras_fit, equal steps per call"
    assert rounds_of("loop", equal, "x") == pytest.approx([1 / 7, 1 / 7])
    assert rounds_of("the whole split val, 9 photos", "prediction", "images/s") == [48, 96]

    assert content["flags"]["backbone"] == "tiny" and content["options"]["rounds"] == 2
    assert {"packages", "processor", "git_commit", "command"} <= set(content["environment"])
    table = pd.read_csv(tmp_path / "benchmark.csv")
    assert list(table["median"]) == pytest.approx([row["median"] for row in content["results"]])
    assert set(table["tensorflow"]) == {tf.__version__}
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in set(table["name"]))


def test_every_replica_takes_every_step_and_has_its_share_of_the_photos(flags, tmp_path, counted):
    content, _ = benchmark({**flags, "replicas": 2}, tmp_path, measure="step")
    # 24 and 48 photos/s, eight a step.
    assert of(content, "step", "train", "steps/s") == [3, 6]
    assert of(content, "step", "train", "steps/s per replica") == [3, 6]
    assert of(content, "step", "train", "images/s per replica") == [12, 24]


def test_where_the_loop_does_one_step_per_call_fit_is_measured_once(
    flags, tmp_path, capsys, counted
):
    flags = {**flags, "steps_per_loop": 1, "label_smoothing": 0.25}
    _, rows = benchmark(flags, tmp_path, measure="step", against="keras_fit")
    equal, single = (f"keras_fit, {n} per call" for n in ("equal steps", "1 step"))
    assert rows[equal, "images/s"]["rounds"] == rows[single, "images/s"]["rounds"] == [168, 336]
    assert "keras_fit goes without --label_smoothing=0.25\n" in capsys.readouterr().out


def test_on_a_tpu(flags, tmp_path, capsys, monkeypatch, counted):
    one = Devices(tf.distribute.get_strategy(), "TPU", 1)
    monkeypatch.setattr(benchmark.parts, "choose_devices", lambda given: one)
    forward_side = mock.Mock(wraps=compute.forward_side)
    monkeypatch.setattr(compute, "forward_side", forward_side)
    content, _ = benchmark(
        flags, tmp_path, measure="step,loop,startup,memory", accelerator="v3-128"
    )
    # Of a core of v3.
    for name in ("train", "forward"):
        achieved = of(content, "step", name, "GFLOP/s")
        mfu = of(content, "step", name, "of peak (MFU)")
        assert mfu == pytest.approx([value / 61_500 for value in achieved])
    # The sixth side is the forward pass of what the device augments, as it does in the warm-up.
    assert of(content, "step", "time of warm-up / augmentation and forward", "x") == [3, 3]
    assert forward_side.call_args.args[1] == "augmentation and forward"
    assert forward_side.call_args.kwargs == {"augmented": True}
    # The parts work beside each other: of 48 and 72 photos/s, the slower one decides.
    assert of(content, "loop", "efficiency", "x") == [0.5, 0.5]
    out = capsys.readouterr().out
    for measure in ("startup", "memory"):
        assert f"{measure} is left out: it starts a process, and this one has the TPU" in out
    with pytest.raises(RequestError, match="would train beside the TPU"):
        benchmark(flags, tmp_path, measure="step", against="torch")


def test_beside_pytorch(flags, tmp_path, capsys, monkeypatch, counted):
    worker = tmp_path / "worker.py"
    worker.write_text("print('2.5.0', flush=True)\ninput()\n")
    monkeypatch.setattr(torch_side, "_WORKER", str(worker))
    monkeypatch.setattr(torch_side, "version", lambda python: "2.5.0")
    content, _ = benchmark(
        {**flags, "dropout": 0.25, "l2": 0.5}, tmp_path, measure="step", against="torch",
        torch_python=sys.executable,
    )  # fmt: skip
    # They are the sixth and seventh side.
    assert of(content, "step", "torch float32", "images/s") == [144, 288]
    assert of(content, "step", "train / torch float32", "x") == pytest.approx([1 / 6, 1 / 6])
    assert of(content, "step", "train / torch bfloat16", "x") == pytest.approx([1 / 7, 1 / 7])
    assert content["environment"]["packages"]["torch"] == "2.5.0"
    assert "torch goes without --dropout=0.25, --l2=0.5\n" in capsys.readouterr().out


def test_what_does_not_fit_into_memory_is_left_out(flags, tmp_path, capsys, monkeypatch, counted):
    # Twenty photos are 61 kB of pixels; the notebook's buffer takes 25 MB.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=50_000))
    monkeypatch.setattr(measures.memory, "peak", lambda *_: {"import": 1e6, "peak": 2e6})
    _, rows = benchmark(
        flags, tmp_path, measure="input,loop,memory", against="notebook", many_photos=20
    )
    assert ("device augments, records cached", "images/s") in rows
    assert ("input alone", "images/s") in rows and ("input, ours", "MB") in rows
    assert not any("pixels" in name or "notebook" in name for name, _ in rows)
    out = capsys.readouterr().out
    for what in ("input, device augments, pixels cached", "loop, cache=pixels"):
        assert f"{what} is left out: --cache=pixels needs" in out
    for measure in ("input", "loop", "memory"):
        assert f"{measure}, notebook is left out: --against=notebook: its shuffle buffer" in out


def test_sweeps_as_they_follow_from_the_rates(flags, tmp_path, counted):
    _, rows = benchmark(
        flags, tmp_path, measure="checkpoints", replicas_sweep="1,2", batch_sweep="4,8",
        precision_sweep="float32,bfloat16",
    )  # fmt: skip
    # In all: the two of 8 photos a step, which stand last.
    assert rows["2 replicas", "steps/s per replica"]["rounds"] == [48 / 8, 96 / 8]
    assert rows["efficiency, 2 replicas", "x"]["rounds"] == [2, 2]
    assert rows["bfloat16 / float32", "x"]["rounds"] == [2, 2]
    assert rows["cost of a photo: batch 8 / cost of a photo: batch 4", "x"]["rounds"] == [0.5, 0.5]


@pytest.mark.slow
def test_everything_for_real(flags, tmp_path):
    _, rows = benchmark(
        flags, tmp_path, measure=",".join(MEASURES), against="keras_fit,notebook",
        many_photos=40, replicas_sweep="1,2", batch_sweep="4,8", image_size_sweep="32,64",
        precision_sweep="float32,bfloat16",
    )  # fmt: skip
    start = {name: row["median"] for (name, unit), row in rows.items() if unit == "s"}
    assert start["imports"] > 0 and start["building"] > 0 and start["tracing"] > 0
    assert {"first step", "last step", "last - first", "save all", "restore all"} <= set(start)
    assert rows["training", "MB"]["median"] > rows["TensorFlow imported", "MB"]["median"] > 100
    assert rows["input, notebook", "MB"]["median"] > 100
    assert rows["size of all", "MB"]["median"] > 0
    for (_, unit), row in rows.items():
        if unit in ("images/s", "x"):
            assert len(row["rounds"]) in (1, 2) and min(row["rounds"]) > 0
