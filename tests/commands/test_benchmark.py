"""What a benchmark does around its measurements: refuses, leaves out, writes, compares."""

import contextlib
import json
import shutil

import pandas as pd
import photos
import pytest
from benchmarking import benchmark, of

from flowers_tpu.benchmarks import bench as bench_module
from flowers_tpu.benchmarks import measures
from flowers_tpu.commands import benchmark
from flowers_tpu.system.errors import RequestError, RunError


def test_without_validation_and_test_photos(flags, tmp_path, capsys, counted):
    shutil.copytree(flags["data_dir"], tmp_path / "d")
    for split in ("val", "test"):
        shutil.rmtree(tmp_path / "d" / split)
    flags = {**flags, "data_dir": str(tmp_path / "d")}
    content, rows = benchmark(flags, tmp_path, measure="loop,evaluation,startup")
    assert ("efficiency", "x") in rows
    assert of(content, "the whole split train, 20 photos", "evaluation", "images/s") == [24, 48]
    assert "startup is left out: scripts/train.py needs val and test too" in capsys.readouterr().out
    # With nothing measured there is no picture, nor that of what was measured before.
    assert (tmp_path / "benchmark.png").exists()
    content, _ = benchmark(flags, tmp_path, measure="startup")
    assert content["results"] == [] and not (tmp_path / "benchmark.png").exists()


def test_resident_steps_need_no_photos_for_a_batch(flags, tmp_path, counted):
    flags = {**flags, "batch_size_per_replica": 32, "class_weights": "balanced"}
    content, rows = benchmark(flags, tmp_path, measure="step", batch_sweep="16,64")
    assert of(content, "step", "train", "steps/s") == [24 / 32, 48 / 32]
    assert rows["batch 64", "steps/s"]["rounds"] == [48 / 64, 96 / 64]
    for measure in ("input", "loop", "startup", "memory"):
        with pytest.raises(RequestError, match="has 20 photos, fewer than the global batch of 32"):
            benchmark(flags, tmp_path, measure=measure)


def test_many_photos_are_repeated_once(flags, tmp_path, monkeypatch):
    folders, trained_in = [], []

    @contextlib.contextmanager
    def repeated(data, photos):
        folders.append(photos)
        yield flags["data_dir"]
        folders.append("removed")

    def peak(work, config):
        trained_in.append((work, config.cache))
        return {"import": 3e6, "peak": 5e6}

    monkeypatch.setattr(bench_module.repeated, "repeated", repeated)
    monkeypatch.setattr(measures.memory, "peak", peak)
    flags = {**flags, "cache": "records"}
    _, rows = benchmark(flags, tmp_path, measure="memory,resume", many_photos=20)
    assert folders == [20, "removed"]
    assert trained_in == [("training", "records"), ("ours", "none")]
    assert rows["TensorFlow imported", "MB"]["rounds"] == [3]
    assert rows["input, ours", "MB"]["rounds"] == [5]
    assert {("first step", "s"), ("last step", "s")} <= set(rows)


def test_what_was_measured_before_a_failure_is_written(flags, tmp_path, monkeypatch, counted):
    def fails(bench):
        raise RunError("no more")

    monkeypatch.setitem(measures.BY_NAME, "evaluation", fails)
    (tmp_path / "benchmark.png").write_bytes(b"of an earlier benchmark")
    with pytest.raises(RunError, match="no more"):
        benchmark(flags, tmp_path, measure="checkpoints,evaluation,loop")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert {row["group"] for row in content["results"]} == {"checkpoints"}
    assert len(pd.read_csv(tmp_path / "benchmark.csv")) == len(content["results"]) == 4
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_there_is_compared_and_replaced(flags, tmp_path, capsys):
    options = {"measure": "checkpoints", "output_dir": str(tmp_path)}
    benchmark(flags, tmp_path, **options)
    path = tmp_path / "benchmark.json"
    earlier = json.loads(path.read_text())
    for row in earlier["results"]:
        row["rounds"] = [value / 64 for value in row["rounds"]]
    earlier["flags"]["dropout"] = 0.5
    earlier["environment"]["processor"] = "an abacus"
    path.write_text(json.dumps(earlier))
    capsys.readouterr()
    benchmark(flags, tmp_path, **options, compare_to=str(path))
    out = capsys.readouterr().out
    compared = out[out.index("Compared with") :].splitlines()
    assert "--dropout was 0.5, is 0.0" in compared
    assert any(line.startswith("processor was an abacus, is ") for line in compared)
    assert not any("--output_dir" in line or "tensorflow was" in line for line in compared)
    (save,) = (line for line in compared if "save all" in line)
    (size,) = (line for line in compared if "size of all" in line)
    assert "SLOWER" in save and "SLOWER" not in size
    assert size.split()[-2] == "64.000"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"compare_to": "/no/benchmark.json"}, r"--compare_to=/no/benchmark\.json: expected"),
        ({"output_dir": __file__}, r"--output_dir=.*: is a file"),
        ({"against": "torch", "torch_python": "/no/python"}, "no such program"),
        ({"accelerator": "v33-8"}, "--accelerator=v33-8: is unknown; there are: v2, v3"),
        ({"many_photos": 3}, r"--many_photos=3: is below the global batch of 4"),
        ({"replicas_sweep": "3,4"}, "--replicas_sweep: 3 replicas do not divide .* 16"),
        ({"image_size_sweep": "32,8"}, "--image_size_sweep=32,8: --image_size=8 is too small"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    flags, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(benchmark.measures, "chosen", lambda options: pytest.fail("measures"))
    with pytest.raises(RequestError, match=message):
        benchmark(flags, tmp_path, **options)


def test_the_notebook_is_compared_at_the_photos_own_size_alone(flags, tmp_path):
    for split in ("train", "val", "test"):
        photos.write_split(tmp_path / "larger", split, 20, size=64)
    flags = {**flags, "data_dir": str(tmp_path / "larger")}
    with pytest.raises(RequestError, match=r"photos as they are, here of 64 px, .*=32; use .*=64"):
        benchmark(flags, tmp_path, measure="loop", against="notebook")


def test_an_unknown_backbone_is_refused_and_the_tiny_one_known(flags, tmp_path):
    with pytest.raises(RequestError, match=r"--backbone=vgg is unknown.*tiny"):
        benchmark({**flags, "backbone": "vgg"}, tmp_path)
