import json

import pandas as pd
import photos
import pytest

from flowers_tpu.benchmarks import bench as bench_module
from flowers_tpu.benchmarks import run
from flowers_tpu.benchmarks.options import MEASURES, Options
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError

QUICK = {"rounds": 2, "seconds_per_round": 0.01}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = photos.write_data_set(tmp_path_factory.mktemp("run") / "d", train=20, val=9)
    flags = {"data_dir": str(folder), "image_size": 32, "backbone": "tiny", "weights": "none"}
    return {**flags, "batch_size_per_replica": 4, "shuffle_buffer": 8, "steps_per_loop": 2}


def benchmark(flags, folder, **options):
    """Runs it; returns the content of its JSON, and the rows by (name, unit)."""
    options = {**vars(Options(**QUICK)), "output_dir": str(folder), **options}
    run.benchmark(Config(**flags), **options)
    content = json.loads((folder / "benchmark.json").read_text())
    return content, {(row["name"], row["unit"]): row for row in content["results"]}


@pytest.fixture
def counted(monkeypatch):
    """In the place of time: the n-th side does 24 n photos/s in the first round, then 48 n."""

    def measure(sides, *, rounds, seconds, on_turn):
        return {side.name: [24.0 * n, 48.0 * n] for n, side in enumerate(sides, start=1)}

    monkeypatch.setattr(bench_module.rounds, "measure", measure)


def test_what_follows_from_the_rates(flags, tmp_path, capsys, counted):
    content, rows = benchmark(
        flags, tmp_path, measure="step,input,loop,evaluation", against="keras_fit,notebook"
    )

    def of(group, name, unit):
        (row,) = (
            row for row in content["results"]
            if row["group"].startswith(group) and (row["name"], row["unit"]) == (name, unit)
        )  # fmt: skip
        assert row["median"] == pytest.approx(sum(row["rounds"]) / len(row["rounds"]))
        return row["rounds"]

    # Sides in order: train, warm-up, forward, evaluation, prediction, fed, fit, fit.
    assert of("step", "train", "images/s") == [24, 48]
    assert of("step", "train", "steps/s") == of("step", "train", "steps/s per replica") == [6, 12]
    assert of("step", "evaluation / forward", "x") == pytest.approx([4 / 3, 4 / 3])
    assert of("step", "time of warm-up / forward", "x") == [1.5, 1.5]
    fed = "train, fed by tf.data"
    assert of("step", f"{fed} / keras_fit, 1 step per call", "x") == pytest.approx([6 / 7, 6 / 7])
    assert of("step", f"{fed} / keras_fit, 2 steps per call", "x") == [0.75, 0.75]
    # The one convolution and the head are nearly all of a photo's FLOPs.
    (flops,) = of("step", "forward", "GFLOP per image")
    assert flops * 1e9 == pytest.approx(2 * 27 * 16 * 16 * 8 + 2 * 8 * 3, rel=0.1)
    assert of("step", "forward", "GFLOP/s") == pytest.approx([72 * flops, 144 * flops])
    # notebook, decode, host, device, records, pixels.
    assert of("input", "host / notebook", "x") == [3, 3]
    assert of("input", "pixels / decode", "x") == [3, 3]
    assert ("filling the cache: pixels", "s") in rows
    # loop, step alone, input alone, loop with cached pixels, fit, notebook. On a CPU the parts take
    # turns: at 48 and 72 photos/s alone, a photo takes 1/48 + 1/72 s.
    assert of("loop", "efficiency", "x") == pytest.approx([24 * (1 / 48 + 1 / 72)] * 2)
    assert of("loop", "loop / notebook", "x") == pytest.approx([1 / 6, 1 / 6])
    assert of("loop", "loop, cache=pixels / notebook", "x") == pytest.approx([4 / 6, 4 / 6])
    assert of("loop", "loop / keras_fit", "x") == [0.2, 0.2]
    assert of("the whole split val, 9 photos", "prediction", "images/s") == [48, 96]

    assert content["flags"]["backbone"] == "tiny" and content["options"]["rounds"] == 2
    assert {"packages", "processor", "git_commit", "command"} <= set(content["environment"])
    table = pd.read_csv(tmp_path / "benchmark.csv")
    assert list(table["median"]) == pytest.approx([row["median"] for row in content["results"]])
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in set(table["name"]))


def test_sweeps_as_they_follow_from_the_rates(flags, tmp_path, counted):
    _, rows = benchmark(
        flags, tmp_path, measure="checkpoints", replicas_sweep="1,2", batch_sweep="4,8",
        precision_sweep="float32,bfloat16",
    )  # fmt: skip
    # In all: the two of 8 photos a step, which stand last.
    assert rows["2 replicas", "steps/s per replica"]["rounds"] == [48 / 8 / 2, 96 / 8 / 2]
    assert rows["2 replicas / 1 replica", "x"]["rounds"] == [2, 2]
    assert rows["bfloat16 / float32", "x"]["rounds"] == [2, 2]
    assert rows["cost of a photo: batch 8 / cost of a photo: batch 4", "x"]["rounds"] == [0.5, 0.5]


def test_what_is_there_is_compared_and_replaced(flags, tmp_path, capsys):
    options = {"measure": "checkpoints", "output_dir": str(tmp_path)}
    benchmark(flags, tmp_path, **options)
    path = tmp_path / "benchmark.json"
    earlier = json.loads(path.read_text())
    for row in earlier["results"]:
        row["rounds"] = [value / 64 for value in row["rounds"]]
    path.write_text(json.dumps(earlier))
    capsys.readouterr()
    benchmark(flags, tmp_path, **options, compare_to=str(path))
    out = capsys.readouterr().out
    compared = out[out.index("Compared with") :].splitlines()
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
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(flags, tmp_path, options, message):
    with pytest.raises(RequestError, match=message):
        benchmark(flags, tmp_path, **options)


def test_an_unknown_backbone_is_refused_and_the_tiny_one_known(flags, tmp_path):
    with pytest.raises(RequestError, match=r"--backbone=vgg is unknown.*tiny"):
        benchmark({**flags, "backbone": "vgg"}, tmp_path)


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
