"""What a benchmark does around its measurements: refuses, leaves out, writes, compares."""

import json
import shutil

import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import measures, rounds, torch_side
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.commands import benchmark, cli
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RequestError, RunError
from tests import photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty photos to train on."""
    return photos.write_data_set(tmp_path_factory.mktemp("benchmark") / "d", train=20, val=9)


@pytest.fixture
def flags(folder):
    flags = {"data_dir": str(folder), "image_size": 32, "backbone": "tiny", "weights": "none"}
    return {**flags, "batch_size_per_replica": 4, "shuffle_buffer": 8, "steps_per_loop": 2}


@pytest.fixture
def counted(monkeypatch):
    """In the place of time: the n-th side does 24 n photos/s in the first round, then 48 n."""

    def measure(sides, *, rounds, seconds, on_turn):
        return {side.name: [24.0 * n, 48.0 * n] for n, side in enumerate(sides, start=1)}

    monkeypatch.setattr(rounds, "measure", measure)


@pytest.fixture
def step_gives(monkeypatch):
    """Has the measure `step` give rows that a test sets."""
    rows = []
    monkeypatch.setitem(measures.BY_NAME, "step", lambda bench: rows)
    return rows


def run(flags, folder, **options):
    """Runs it; returns the content of its JSON."""
    options = {"rounds": 2, "output_dir": str(folder), **options}
    benchmark.benchmark(Spec.of(**flags), BenchmarkOptions(**options))
    return json.loads((folder / "benchmark.json").read_text())


def rounds_of(content):
    return {(row["group"], row["name"], row["unit"]): row["rounds"] for row in content["results"]}


def test_the_command_writes_and_prints_its_results(flags, tmp_path, capsys, counted):
    out = tmp_path / "out"
    given = [f"--{name}={value}" for name, value in flags.items()]
    given += ["--measure=step,evaluation", "--rounds=2", f"--output_dir={out}"]
    assert cli.main("benchmark", given) == 0
    content = json.loads((out / "benchmark.json").read_text())
    rows = rounds_of(content)
    assert rows["the whole split val, 9 photos", "evaluation", "images/s"] == [24, 48]
    assert content["flags"]["backbone"] == "tiny" and content["options"]["rounds"] == 2
    assert content["flags"]["global_batch_size"] == 4 and content["flags"]["augment_on"] == "host"
    assert {"packages", "processor", "git_commit", "command"} <= set(content["environment"])
    table = pd.read_csv(out / "benchmark.csv")
    assert list(table["median"]) == pytest.approx([row["median"] for row in content["results"]])
    assert set(table["tensorflow"]) == {tf.__version__}
    assert sorted(path.name for path in out.iterdir()) == ["benchmark.csv", "benchmark.json"]
    printed = capsys.readouterr().out
    assert "tiny, 32 px, float32; 1 CPU replica, global batch 4; " in printed
    assert all(f"  {name} " in printed for name in set(table["name"]))


def test_results_go_to_a_folder_of_the_runs_name(flags, tmp_path, monkeypatch, step_gives):
    monkeypatch.chdir(tmp_path)
    spec = Spec.of(**flags, run_dir="runs/quickstart/")
    benchmark.benchmark(spec, BenchmarkOptions(measure="step"))
    assert (tmp_path / "runs" / "benchmark-quickstart" / "benchmark.json").exists()


def test_without_validation_and_test_photos(flags, tmp_path, counted):
    shutil.copytree(flags["data_dir"], tmp_path / "d")
    for split in ("val", "test"):
        shutil.rmtree(tmp_path / "d" / split)
    flags = {**flags, "data_dir": str(tmp_path / "d")}
    rows = rounds_of(run(flags, tmp_path / "out", measure="loop,evaluation"))
    assert ("loop", "efficiency", "x") in rows
    assert rows["the whole split train, 20 photos", "evaluation", "images/s"] == [24, 48]


def test_resident_steps_need_no_photos_for_a_batch(flags, tmp_path, counted):
    flags = {**flags, "batch_size_per_replica": 32, "class_weights": "balanced"}
    rows = rounds_of(run(flags, tmp_path, measure="step", batch_sweep="16,64"))
    assert rows["step, data on the device", "train", "steps/s"] == [24 / 32, 48 / 32]
    assert rows["batch per replica", "batch 64", "steps/s"] == [48 / 64, 96 / 64]
    for measure in ("input", "loop", "memory"):
        with pytest.raises(RequestError, match="has 20 photos, fewer than the global batch of 32"):
            run(flags, tmp_path, measure=measure)


def test_what_was_measured_before_a_failure_is_written(flags, tmp_path, monkeypatch, step_gives):
    def fails(bench):
        raise RunError("no more")

    step_gives.append(Row("step", "train", "images/s", (24.0, 48.0)))
    monkeypatch.setitem(measures.BY_NAME, "evaluation", fails)
    with pytest.raises(RunError, match="no more"):
        run(flags, tmp_path, measure="step,evaluation,loop")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert rounds_of(content) == {("step", "train", "images/s"): [24, 48]}
    assert len(pd.read_csv(tmp_path / "benchmark.csv")) == 1


def test_what_is_there_is_compared_and_replaced(flags, tmp_path, capsys, step_gives):
    step_gives += [
        Row("step", "train", "images/s", (640.0, 704.0)),
        Row("step", "steps per call", "steps", (2,)),
    ]
    run(flags, tmp_path, measure="step")
    path = tmp_path / "benchmark.json"
    earlier = json.loads(path.read_text())
    earlier["flags"]["dropout"] = 0.5
    earlier["environment"]["processor"] = "an abacus"
    path.write_text(json.dumps(earlier))
    step_gives[:] = [
        Row("step", "train", "images/s", (10.0, 11.0)),
        Row("step", "steps per call", "steps", (128,)),
    ]
    capsys.readouterr()
    run(flags, tmp_path, measure="step", compare_to=str(path))
    out = capsys.readouterr().out
    compared = out[out.index("Compared with") :].splitlines()
    assert "--dropout was 0.5, is 0.0" in compared
    assert any(line.startswith("processor was an abacus, is ") for line in compared)
    assert not any("--output_dir" in line or "tensorflow was" in line for line in compared)
    (train,) = (line for line in compared if "train" in line)
    (steps,) = (line for line in compared if "steps per call" in line)
    assert "SLOWER" in train and "SLOWER" not in steps
    assert steps.split()[-2] == "64.000"
    assert json.loads(path.read_text())["results"][0]["rounds"] == [10, 11]


def test_the_version_of_pytorch_is_kept(flags, tmp_path, monkeypatch, step_gives):
    monkeypatch.setattr(torch_side, "version", lambda python: "2.5.0")
    content = run({**flags, "backbone": "vgg16"}, tmp_path, measure="step", against="torch")
    assert content["environment"]["packages"]["torch"] == "2.5.0"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"compare_to": "/no/benchmark.json"}, r"--compare_to=/no/benchmark\.json: expected"),
        ({"output_dir": __file__}, r"--output_dir=.*: is a file"),
        ({"against": "torch", "torch_python": "/no/python"}, "--backbone=tiny is not measured"),
        ({"many_photos": 3}, r"--many_photos=3: is below the global batch of 4"),
        ({"replicas_sweep": "3,4"}, "--replicas_sweep: 3 replicas do not divide .* 16"),
        ({"image_size_sweep": "32,8"}, "--image_size_sweep=32,8: --image_size=8 is too small"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    flags, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(measures, "chosen", lambda options: pytest.fail("measures"))
    with pytest.raises(RequestError, match=message):
        run(flags, tmp_path, **options)


def test_a_folder_of_something_else_is_refused(flags, tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(RequestError, match=r"--output_dir=.*: holds a run; choose another folder"):
        run(flags, tmp_path)


def test_the_notebook_is_compared_at_the_photos_own_size_alone(flags, tmp_path):
    for split in ("train", "val", "test"):
        photos.write_split(tmp_path / "larger", split, 20, size=64)
    (tmp_path / "larger" / "classes.txt").write_text("rose\ntulip\niris\n")
    flags = {**flags, "data_dir": str(tmp_path / "larger")}
    with pytest.raises(RequestError, match=r"photos as they are, here of 64 px, .*=32; use .*=64"):
        run(flags, tmp_path / "out", measure="loop", against="notebook")


def test_an_unknown_backbone_is_refused_and_the_tiny_one_known(flags, tmp_path):
    with pytest.raises(RequestError, match=r"--backbone=vgg is unknown.*tiny"):
        run({**flags, "backbone": "vgg"}, tmp_path)
