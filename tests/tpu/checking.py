"""A check with a stand-in for the compiler whose figures are simple, for tests."""

import functools
import json

import pytest

from flowers_tpu.commands import tpu_check
from flowers_tpu.runs.spec import Spec
from flowers_tpu.tpu import compiler
from flowers_tpu.tpu.compiler import Compiled
from flowers_tpu.tpu.lowering import Lowered, Steps
from flowers_tpu.tpu.options import TpuCheckOptions

GIB = 2**30


def figures(temporaries=1.0 * GIB):
    memory = {
        "arguments": 0.5 * GIB,
        "outputs": 0.25 * GIB,
        "aliased": 0.25 * GIB,
        "temporaries": temporaries,
        "code": 0.0,
    }
    return Compiled(memory, flops=61.5e12, bytes_accessed=45e9, seconds=2.0)


def run(tmp_path, spec=None, **options):
    """Checks a run; returns what the report holds."""
    defaults = {"topology": "v3", "output_dir": str(tmp_path / "out"), "compile_minutes": 2.0}
    tpu_check.tpu_check(spec or spec_of(), TpuCheckOptions(**defaults | options))
    return read_json(tmp_path)


def spec_of(**flags):
    defaults = {"backbone": "small_cnn", "image_size": 32, "warmup_epochs": 0}
    return Spec.of(**{**defaults, "run_dir": "runs/mine", **flags})


def read_json(tmp_path):
    return json.loads((tmp_path / "out" / "tpu_check.json").read_text())


def rows_of(table):
    """The cells of each row of the tables, by its label; of the last one if there are more."""
    return {line[:38].strip(): line[38:].split() for line in table.splitlines()}


class StepsByName(Steps):
    """Steps whose programs are only their names and batches."""

    def lower(self, step, batch_size):
        name = f"{step.name},{batch_size}".encode()
        return Lowered(name, batch_bytes=1000 * batch_size, all_reduce_bytes=0,
                       other_state_bytes=0, source_of=lambda name: "")  # fmt: skip


# Building a model and lowering its steps takes seconds; most tests ask for the same.
_lowered_once = functools.cache(Steps)
_named_once = functools.cache(StepsByName)


@pytest.fixture(name="compile_for")
def compile_for_fixture(monkeypatch):
    """Puts a function of (slice, module) in the place of the compiler; gives what it was asked."""
    monkeypatch.setattr(compiler, "check_installed", lambda: None)
    monkeypatch.setattr(tpu_check, "Steps", _lowered_once)

    def use(function):
        asked = []

        def stand_in(slice_, module, *, seconds, on_wait):
            asked.append((slice_.topology, len(module), seconds))
            return function(slice_, module)

        monkeypatch.setattr(compiler, "compile_for", stand_in)
        return asked

    return use


@pytest.fixture(name="compile_named")
def compile_named_fixture(compile_for, monkeypatch):
    """The same for a function of (name of the step, batch); gives the batches asked for."""
    monkeypatch.setattr(tpu_check, "Steps", _named_once)

    def use(function):
        batches = []

        def stand_in(slice_, module):
            name, batch = module.decode().split(",")
            batches.append(int(batch))
            return function(name, int(batch))

        compile_for(stand_in)
        return batches

    return use
