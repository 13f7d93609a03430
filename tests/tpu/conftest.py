"""Stand-ins for the TPU compiler."""

import functools

import pytest

from flowers_tpu.commands import tpu_check
from flowers_tpu.tpu import compiler
from flowers_tpu.tpu.lowering import Lowered, Steps

lowered_once = functools.cache(Steps)


class NamedSteps(Steps):
    """Steps whose programs are only their names and batches."""

    def lower(self, step, batch_size):
        name = f"{step.name},{batch_size}".encode()
        return Lowered(name, batch_bytes=1000 * batch_size, all_reduce_bytes=0,
                       other_state_bytes=0, source_of=lambda name: "")  # fmt: skip


named_once = functools.cache(NamedSteps)


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


@pytest.fixture
def compile_named(compile_for, monkeypatch):
    """The same for a function of (name of the step, batch); gives the batches asked for."""
    monkeypatch.setattr(check, "Steps", named_once)

    def use(function):
        batches = []

        def stand_in(slice_, module):
            name, batch = module.decode().split(",")
            batches.append(int(batch))
            return function(name, int(batch))

        compile_for(stand_in)
        return batches

    return use
