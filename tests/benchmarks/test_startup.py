import json

import numpy as np
import pytest

from flowers_tpu.benchmarks import memory, process, startup
from flowers_tpu.config import Config
from flowers_tpu.errors import RunError


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
