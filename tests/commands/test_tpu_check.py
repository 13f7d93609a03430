"""The whole check with a stand-in for the compiler, whose figures are simple."""

import inspect
import json
from importlib import metadata

import pytest
import tensorflow as tf

from flowers_tpu.commands import cli, tpu_check
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.tpu import data_facts, lowering
from flowers_tpu.tpu.compiler import CompileError, CompileTimeoutError
from flowers_tpu.tpu.lowering import Step, Steps
from flowers_tpu.tpu.options import TpuCheckOptions
from tests import photos
from tests.tpu.checking import (  # noqa: F401  (a fixture, by its name)
    GIB,
    compile_for_fixture,
    figures,
    read_json,
    rows_of,
    run,
    spec_of,
)


def test_table_and_json(compile_for, tmp_path, capsys):
    asked = compile_for(lambda slice_, module: figures())
    content = run(tmp_path, topology="v3,v4", host_images_per_second=64.0)
    # Both slices get the same programs: three steps each.
    assert [topology for topology, *_ in asked] == ["v3:2x2"] * 3 + ["v4:2x2x1"] * 3
    assert asked[0][1:] == (asked[3][1], 120.0)
    v3, v4 = content["slices"]
    assert (v3["replicas"], v4["replicas"]) == (8, 4)
    (step, *_) = v3["steps"]
    # 61.5 TFLOP take a core with 61.5 TFLOP/s a second, in which each of 8 does 16 photos.
    assert step["step"] == "fine-tuning" and step["runs"] is True
    assert step["bounds"]["seconds"] == pytest.approx(1.0)
    assert step["bounds"]["limit"] == "compute"
    assert step["bounds"]["images_per_second"] == pytest.approx(128)
    assert step["compiler"]["flops_per_image"] == pytest.approx(61.5e12 / 16)
    needed = 1.5 * GIB + step["memory"]["of_it_state_this_step_leaves_alone"]
    assert step["memory"]["needed"] == needed
    assert step["memory"]["headroom"] == pytest.approx(15.48 * GIB - needed)
    assert v3["flags"]["backbone"] == "small_cnn"
    assert (v3["flags"]["precision"], v3["flags"]["augment_on"]) == ("bfloat16", "device")
    assert (v3["flags"]["global_batch_size"], v4["flags"]["global_batch_size"]) == (128, 64)
    assert content["versions"]["tensorflow"] == tf.__version__
    assert content["versions"]["libtpu"] == "0.0.42.1"
    assert content["topologies"] == ["v3:2x2", "v4:2x2x1"]
    table = capsys.readouterr().out
    assert "small_cnn, 32 px, bfloat16, 104 classes" in table
    assert "12,753 training photos are assumed: the drawn photos of --data_dir=example" in table
    assert "v3:2x2 (v3-8): 8 replicas, 1 host;" in table
    assert "an estimate" in table and "Nothing was measured on a TPU" in table
    assert rows_of(table)["most photos/s, a replica"] == ["72"] * 3  # 16 * 275 / 61.5 of v4
    left = (30.75 * GIB - v4["steps"][1]["memory"]["needed"]) / GIB
    assert rows_of(table)["memory left, GiB"][1] == f"{left:.2f}"


def test_each_host_feeds_its_part_and_only_training_is_measured(compile_for, tmp_path, capsys):
    compile_for(lambda slice_, module: figures())
    content = run(tmp_path, topology="v3-32", host_images_per_second=64.0)
    # 32 replicas do 16 photos each in the second, and 4 hosts share in feeding these 512.
    (slice_,) = content["slices"]
    assert slice_["hosts"] == 4
    training, evaluation, _ = slice_["steps"]
    assert training["input"] == {
        "images_per_second_needed_per_host": pytest.approx(128),
        "part_delivered": pytest.approx(0.5),
        "enough": False,
    }
    assert "input" not in evaluation
    assert content["input"]["images_per_second_per_host"] == 64
    table = capsys.readouterr().out
    assert "v3:4x4 (v3-32): 32 replicas, 4 hosts;" in table
    assert "input: 64 photos/s a host, as --host_images_per_second says" in table
    assert rows_of(table)["photos/s of each host"] == ["128"] * 3
    assert rows_of(table)["it delivers, photos/s"] == ["64", "(50%)", "-", "-"]
    enough = run(tmp_path, topology="v3-32", host_images_per_second=128.5)
    assert enough["slices"][0]["steps"][0]["input"]["enough"] is True
    assert rows_of(capsys.readouterr().out)["it delivers, photos/s"][:2] == ["128", "(enough)"]


def test_a_global_batch_on_two_slices_with_data_that_are_there(
    compile_for, tmp_path, capsys, monkeypatch
):
    compile_for(lambda slice_, module: figures())
    monkeypatch.setattr(data_facts, "_SECONDS", 0.4)
    photos.write_data_set(tmp_path / "data", train=24, size=32, num_classes=3)
    spec = spec_of(data_dir=str(tmp_path / "data"), global_batch_size=16)
    content = run(tmp_path, spec, topology="v4,v3")
    v4, v3 = content["slices"]
    assert [s["flags"]["global_batch_size"] for s in (v4, v3)] == [16, 16]
    assert [s["steps"][0]["batch_size_per_replica"] for s in (v4, v3)] == [4, 2]
    # On v3 each photo takes half a second, so what was measured is enough.
    rate = content["input"]["images_per_second_per_host"]
    assert 100 < rate < 1e6 and content["input"]["origin"] == "measured on this machine"
    assert v3["steps"][0]["bounds"]["images_per_second"] == pytest.approx(16)
    assert v3["steps"][0]["input"]["part_delivered"] == pytest.approx(rate / 16)
    table = capsys.readouterr().out
    assert "small_cnn, 32 px, bfloat16, 3 classes" in table and "assumed" not in table
    assert f"input: {rate:,.0f} photos/s a host, measured on this machine" in table


def test_every_slice_must_have_photos_for_its_global_batch(compile_for, tmp_path):
    asked = compile_for(lambda slice_, module: figures())
    photos.write_data_set(tmp_path / "data", train=24, size=32, num_classes=3)
    spec = spec_of(data_dir=str(tmp_path / "data"), batch_size_per_replica=4)
    # 4 replicas of a v4-8 take 16 photos a step, but 8 of a v3-8 take 32.
    with pytest.raises(RequestError, match="v3:2x2: the training split has 24 photos, fewer than"):
        run(tmp_path, spec, topology="v4,v3")
    assert not asked


def test_the_input_is_that_of_one_replica_whatever_the_slice(compile_for, tmp_path, monkeypatch):
    compile_for(lambda slice_, module: figures())
    photos.write_data_set(tmp_path / "data", train=64, size=32, num_classes=3)

    def measure(recipe):
        assert (recipe.resolved.photos_per_step, recipe.resolved.augments_on) == (16, "device")
        return 123.0

    monkeypatch.setattr(data_facts, "input_images_per_second", measure)
    spec = spec_of(data_dir=str(tmp_path / "data"), global_batch_size=64)
    assert run(tmp_path, spec)["input"] == {
        "images_per_second_per_host": 123.0,
        "origin": "measured on this machine",
    }


def test_an_input_that_cannot_be_read_does_not_end_the_check(compile_for, tmp_path, capsys):
    compile_for(lambda slice_, module: figures())
    photos.write_data_set(tmp_path / "data", train=24, size=32, num_classes=3)
    shard = tmp_path / "data" / "train" / "00-32x32-12.tfrec"
    shard.rename(shard.with_name("00-32x32-13.tfrec"))
    content = run(tmp_path, spec_of(data_dir=str(tmp_path / "data"), global_batch_size=16))
    assert content["input"]["images_per_second_per_host"] is None
    assert "not measured: " in content["input"]["origin"]
    assert "--bad_records=skip leaves bad records out" in content["input"]["origin"]
    assert content["slices"][0]["steps"][0]["input"]["enough"] is None
    table = capsys.readouterr().out
    assert "input: not measured: " in table
    assert rows_of(table)["it delivers, photos/s"] == ["not", "measured", "-", "-"]


def test_a_step_that_does_not_fit_or_compile(compile_for, tmp_path, capsys):
    def stand_in(slice_, module):
        if slice_.generation.name == "v2":
            return figures(temporaries=8 * GIB)
        if slice_.generation.name == "v4":
            raise CompileTimeoutError
        raise CompileError("UNIMPLEMENTED: something")

    compile_for(stand_in)
    with pytest.raises(RunError, match="9 of 9 programs") as error:
        run(tmp_path, topology="v2,v3,v4")
    assert "v2:2x2 fine-tuning: memory" in str(error.value)
    assert "v3:2x2 prediction: compiler" in str(error.value)
    assert "v4:2x2x1 prediction: timeout" in str(error.value)
    table = capsys.readouterr().out
    assert "of memory, but 7.48 are available; lower --batch_size_per_replica" in table
    assert "UNIMPLEMENTED: something" in table and "--compile_minutes=2" in table
    assert rows_of(table)["compiles and fits"] == ["timeout"] * 3
    for row in ("memory needed, GiB", "memory left, GiB", "least ms a step"):
        assert rows_of(table)[row] == ["-"] * 3, row
    content = read_json(tmp_path)
    assert [s["steps"][0]["problem"]["reason"] for s in content["slices"]] == [
        *("memory", "compiler", "timeout")
    ]


def with_dynamic_shape(batch):
    return tf.reduce_sum(tf.boolean_mask(batch["weight"], batch["weight"] > 0))  # the line


def with_host_only_operation(batch):
    return tf.io.encode_jpeg(batch["image"][0])  # the line


def test_what_no_tpu_could_run_is_named_with_its_line(compile_for, tmp_path, capsys, monkeypatch):
    asked = compile_for(lambda slice_, module: figures())
    monkeypatch.setattr(tpu_check, "Steps", Steps)
    steps = [
        Step("fine-tuning", with_dynamic_shape, training=True),
        Step("prediction", with_host_only_operation),
    ]
    monkeypatch.setattr(lowering, "replica_steps", lambda recipe, state, plan: steps)
    reasons = "v3:2x2 fine-tuning: dynamic shape; v3:2x2 prediction: host-only"
    with pytest.raises(RunError, match=f"2 of 2 programs do not run on a TPU .{reasons}"):
        run(tmp_path, spec_of(backbone="tiny"))
    assert not asked
    table = capsys.readouterr().out
    problems = [step["problem"] for step in read_json(tmp_path)["slices"][0]["steps"]]
    for step, problem, operation, advice in (
        (with_dynamic_shape, problems[0], "Where (boolean_mask/Where)", "tf.where with three"),
        (with_host_only_operation, problems[1], "EncodeJpeg (EncodeJpeg)", "the input pipeline"),
    ):
        lines, first = inspect.getsourcelines(step)
        number = first + next(n for n, line in enumerate(lines) if "# the line" in line)
        place = f"tests/commands/test_tpu_check.py:{number}"
        assert (problem["operation"], problem["source"]) == (operation, place)
        assert advice in problem["advice"] and "needed" not in problem
        assert f"{operation} at {place}: {problem['text']}; {problem['advice']}" in table


def test_what_is_done_is_written_before_the_next_slice(compile_for, tmp_path):
    def stand_in(slice_, module):
        assert (tmp_path / "out").is_dir()
        if slice_.generation.name == "v4":
            raise KeyboardInterrupt
        return figures()

    compile_for(stand_in)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, topology="v3,v4")
    content = read_json(tmp_path)
    assert [slice_["topology"] for slice_ in content["slices"]] == ["v3:2x2"]
    assert content["topologies"] == ["v3:2x2", "v4:2x2x1"]


def test_a_folder_with_anything_else_is_refused_but_an_earlier_report_replaced(
    compile_for, tmp_path
):
    compile_for(lambda slice_, module: figures())
    (tmp_path / "out").mkdir()
    for name, message in (
        ("notes.txt", r"--output_dir=.*out: holds files but no TPU check \(notes\.txt, …\)"),
        ("config.json", "--output_dir=.*out: holds a run; choose another folder"),
    ):
        (tmp_path / "out" / name).write_text("mine")
        with pytest.raises(RequestError, match=message):
            run(tmp_path)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "tpu_check.json").write_text("of an earlier one")
    assert run(tmp_path)["slices"]


def test_the_folder_is_named_after_the_run(compile_for, tmp_path, monkeypatch):
    compile_for(lambda slice_, module: figures())
    monkeypatch.chdir(tmp_path)
    tpu_check.tpu_check(spec_of(run_dir="elsewhere/mine/"), TpuCheckOptions(topology="v3"))
    report = tmp_path / "runs" / "tpu-check-mine" / "tpu_check.json"
    assert json.loads(report.read_text())["topologies"] == ["v3:2x2"]


def test_requests_are_checked_before_anything_is_built(compile_for, tmp_path):
    asked = compile_for(lambda slice_, module: figures())
    with pytest.raises(RequestError, match="--topology=v1 "):
        run(tmp_path, topology="v1")
    with pytest.raises(RequestError, match="--backbone=vgg17"):
        run(tmp_path, spec_of(backbone="vgg17"))
    with pytest.raises(RequestError, match="v3:2x2: --global_batch_size=12: is not divisible by 8"):
        run(tmp_path, spec_of(global_batch_size=12), topology="v4,v3")
    for minutes in (0.0, -1.0):
        with pytest.raises(RequestError, match=r"--compile_minutes=.*: must be above 0"):
            run(tmp_path, compile_minutes=minutes)
    with pytest.raises(RequestError, match=r"--compile_minutes=nan: must be a finite number"):
        run(tmp_path, compile_minutes=float("nan"))
    with pytest.raises(RequestError, match=r"--host_images_per_second=-1.0: must not be negative"):
        run(tmp_path, host_images_per_second=-1.0)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"--output_dir=.*file/out: cannot be made"):
        run(tmp_path, output_dir=str(tmp_path / "file" / "out"))
    with pytest.raises(RequestError, match=r"--output_dir=.*file: is a file, not a folder"):
        run(tmp_path, output_dir=str(tmp_path / "file"))
    assert not asked


def test_determinism_is_switched_on_where_it_is_asked_for(compile_for, tmp_path, monkeypatch):
    compile_for(lambda slice_, module: figures())
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    run(tmp_path)
    assert not calls
    run(tmp_path, spec_of(deterministic=True))
    assert calls == [1]


def test_without_the_extra_it_ends_with_one_line(tmp_path, monkeypatch, capsys):
    version = metadata.version

    def without_jax(name):
        if name == "jax":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_jax)
    flags = ["--backbone=tiny", f"--output_dir={tmp_path / 'out'}"]
    assert cli.main("tpu_check", flags) == 2
    assert capsys.readouterr() == (
        "",
        "tpu_check: the TPU compiler is not installed (no jax): pip install -e '.[tpu-check]'\n",
    )
    assert not (tmp_path / "out").exists()
