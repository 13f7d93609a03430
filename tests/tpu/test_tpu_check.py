"""The whole check with a stand-in for the compiler, whose figures are simple."""

import functools
import json

import pytest

from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError, RunError
from flowers_tpu.tpu import check, compiler, report
from flowers_tpu.tpu.compiler import Compiled, CompileError, CompileTimeoutError

GIB = 2**30

Steps = check.Steps
lowered_once = functools.cache(Steps)


@pytest.fixture
def compile_for(monkeypatch):
    """Puts a function of (slice, module) in the place of the compiler; gives what it was asked."""
    monkeypatch.setattr(compiler, "check_installed", lambda: None)
    monkeypatch.setattr(check, "Steps", lowered_once)

    def use(function):
        asked = []

        def stand_in(slice_, module, *, seconds, on_wait):
            asked.append((slice_.topology, len(module), seconds))
            return function(slice_, module)

        monkeypatch.setattr(compiler, "compile_for", stand_in)
        return asked

    return use


def figures(temporaries=1.0 * GIB):
    memory = {
        "arguments": 0.5 * GIB,
        "outputs": 0.25 * GIB,
        "aliased": 0.25 * GIB,
        "temporaries": temporaries,
        "code": 0.0,
    }
    return Compiled(memory, flops=61.5e12, bytes_accessed=45e9, seconds=2.0)


def run(tmp_path, config=None, **options):
    defaults = {
        "topology": "v3",
        "find_batch": False,
        "output_dir": str(tmp_path / "out"),
        "compile_minutes": 2.0,
        "host_images_per_second": 0.0,
    }
    config = config or Config(
        backbone="small_cnn", image_size=32, warmup_epochs=0, run_dir="runs/mine"
    )
    check.check(config, **{**defaults, **options})
    return json.loads((tmp_path / "out" / "mine.json").read_text())


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
    assert content["config"]["backbone"] == "small_cnn"
    table = capsys.readouterr().out
    assert "small_cnn, 32 px, bfloat16, 104 classes" in table
    assert "v3:2x2 (v3-8): 8 replicas" in table and "Nothing was measured on a TPU" in table
    rows = {line[:38].strip(): line[38:].split() for line in table.splitlines()}
    assert rows["most photos/s, a replica"] == ["72"] * 3  # 16 * 275 / 61.5 of v4
    assert "64 (50%)" in table  # of v3's 128


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
    content = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert [s["steps"][0]["problem"]["reason"] for s in content["slices"]] == [
        *("memory", "compiler", "timeout")
    ]


def test_the_largest_batch(compile_for, tmp_path, capsys, monkeypatch):
    sizes = {}

    def stand_in(slice_, module):
        # As if a photo of a training step took 0.1 GiB and one of another 0.05.
        return figures(temporaries=sizes[module] * GIB)

    class Growing(Steps):
        def lower(self, step, batch_size):
            lowered = super().lower(step, batch_size)
            sizes[lowered.module] = batch_size * (0.1 if step.training else 0.05)
            return lowered

    asked = compile_for(stand_in)
    monkeypatch.setattr(check, "Steps", Growing)
    content = run(tmp_path, find_batch=True)
    # 0.5 + 0.1 * 144 = 14.9 GiB and the state fit into 15.48, but 15.7 do not.
    assert content["largest_batch_size_per_replica"] == {"v3:2x2": 144}
    assert "v3:2x2: --batch_size_per_replica=144 fits, 152 do not fit" in capsys.readouterr().out
    assert all(s["batch_size_per_replica"] == 144 for s in content["slices"][0]["steps"])
    assert len(asked) <= 3 * 4


def test_another_file_is_not_overwritten_but_an_earlier_report_is(compile_for, tmp_path):
    compile_for(lambda slice_, module: figures())
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "mine.json"
    for foreign in ("[1]", '{"made_by": "another"}', "no JSON"):
        path.write_text(foreign)
        with pytest.raises(RequestError, match=r"--output_dir=.*mine\.json is there and not"):
            run(tmp_path)
        assert path.read_text() == foreign
    path.write_text(json.dumps({"made_by": report.MADE_BY}))
    assert run(tmp_path)["slices"]


def test_requests_are_checked_before_anything_is_built(compile_for, tmp_path):
    asked = compile_for(lambda slice_, module: figures())
    with pytest.raises(RequestError, match="--topology=v1 "):
        run(tmp_path, topology="v1")
    with pytest.raises(RequestError, match="--backbone=vgg17"):
        run(tmp_path, Config(backbone="vgg17", run_dir="runs/mine"))
    with pytest.raises(RequestError, match="--global_batch_size=12: is not divisible by 8"):
        run(tmp_path, Config(backbone="small_cnn", global_batch_size=12, run_dir="runs/mine"))
    assert not asked
