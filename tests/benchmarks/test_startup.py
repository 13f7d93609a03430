import json
import pathlib
import time

import numpy as np
import photos
import pytest

from flowers_tpu import experiment
from flowers_tpu.benchmarks import memory, process, startup
from flowers_tpu.config import Config
from flowers_tpu.errors import RunError
from flowers_tpu.training import loop


def test_the_parts_of_the_start_add_up_to_it():
    # Begun at 100; imports done at 103, all built at 108, traced at 110; steps done at 114, 114.5.
    found = startup.split(100.0, 103.0, 108.0, 110.0, 114.0, 114.5)
    assert found == {
        "imports": 3.0,
        "building": 5.0,
        "tracing": 2.0,
        "compiling": 3.5,  # the first step took 4 s, a step takes 0.5
        "a step": 0.5,
        "total": 14.0,
    }
    assert sum(found[name] for name in startup.PARTS) == found["total"]


def test_nothing_is_compiled_where_the_second_step_takes_longer():
    found = startup.split(100.0, 103.0, 108.0, 110.0, 114.0, 120.0)
    assert (found["compiling"], found["a step"]) == (0.0, 4.0)


def test_the_run_itself_is_timed_until_its_second_step(tmp_path, monkeypatch, capsys):
    folder = photos.write_data_set(tmp_path / "d", train=9)
    config = Config(
        **{"data_dir": str(folder), "image_size": 32, "backbone": "tiny", "weights": "none"},
        **{"batch_size_per_replica": 4, "shuffle_buffer": 8, "run_dir": str(tmp_path / "run")},
    )
    done, compile_train_steps = [], experiment.compiled.compile_train_steps

    class Watched:
        def __init__(self, *arguments, **options):
            self.function = compile_train_steps(*arguments, **options)

        def get_concrete_function(self, *given):
            self.function.get_concrete_function(*given)
            done.append(f"traced {self.function.experimental_get_tracing_count()}")

        def __call__(self, *given):
            result = self.function(*given)
            done.append(f"called, traced {self.function.experimental_get_tracing_count()}")
            return result

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(experiment.compiled, "compile_train_steps", Watched)
    monkeypatch.setattr(loop, "fit", loop.fit)  # to be put back
    monkeypatch.setattr(startup.os, "_exit", leave)
    begin = time.time() - 1000
    with pytest.raises(SystemExit):
        startup.main(repr(begin), json.dumps(vars(config)))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == [*startup.PARTS, "total"]
    assert found["imports"] >= 1000 and min(found.values()) >= 0
    assert found["total"] == pytest.approx(sum(found[name] for name in startup.PARTS))
    assert found["total"] < time.time() - begin
    assert done == ["traced 1", "called, traced 1", "called, traced 1"]
    # The files of a run were begun before its first step.
    assert (tmp_path / "run" / "config.json").exists()
    assert list((tmp_path / "run" / "tensorboard" / "train").iterdir())
    assert not (tmp_path / "run" / "history.csv").exists()


def test_the_start_is_that_of_a_run_in_a_folder_of_its_own(monkeypatch):
    runs = []

    def process_run(module, arguments, config):
        assert time.time() - 60 < float(arguments[0]) <= time.time()
        assert pathlib.Path(config.run_dir).parent.is_dir()
        runs.append(config)
        return {"total": 1.0}

    monkeypatch.setattr(startup.process, "run", process_run)
    config = Config(run_dir="runs/mine", steps_per_loop=50, epochs=1, dropout=0.5)
    assert startup.seconds(config) == {"total": 1.0}
    (run,) = runs
    assert not pathlib.Path(run.run_dir).parent.exists()
    assert (run.weights, run.steps_per_loop, run.epochs, run.dropout) == ("none", 0, 2, 0.5)


def test_the_peak_of_memory_stays():
    before = memory.resident_peak()
    held = np.ones(40_000_000)  # 320 MB
    risen = memory.resident_peak()
    del held
    assert risen >= before and risen >= 320e6
    assert memory.resident_peak() >= risen - 10e6  # the kernel counts in portions


def test_a_process_answers_with_its_last_line(tmp_path, monkeypatch):
    (tmp_path / "answers.py").write_text(
        "import json, sys\nprint('chatter')\n"
        "print(json.dumps({'work': sys.argv[1], 'size': json.loads(sys.argv[2])['image_size']}))\n"
    )
    (tmp_path / "fails.py").write_text("raise ValueError('of no use')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = Config(image_size=64)
    assert process.run("answers", ["reads"], config) == {"work": "reads", "size": 64}
    with pytest.raises(RunError, match=r"fails reads: .*ValueError: of no use"):
        process.run("fails", ["reads"], config)


def test_the_configuration_arrives_whole():
    config = Config(image_size=64, optimizer="sgd", learning_rate=1e-7)
    assert process.read_config(json.dumps(vars(config))) == config
