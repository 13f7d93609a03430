import types

import psutil
import pytest

from flowers_tpu.system import memory
from flowers_tpu.system.errors import RequestError


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 16 GB left, and no container."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=16e9))
    monkeypatch.setattr(memory, "_CGROUP", str(tmp_path))
    return tmp_path


def test_without_a_container_the_machine_counts(machine):
    assert memory.available() == 16e9


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (".", ("memory.max", "memory.current", "memory.stat", "inactive_file")),
        (
            "memory",
            *[("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat",
               "total_inactive_file")],
        ),
    ],
    ids=["version 2", "version 1"],
)  # fmt: skip
def test_a_container_may_have_less(machine, folder, names):
    limit, usage, statistics, inactive = names
    (machine / folder).mkdir(exist_ok=True)
    (machine / folder / limit).write_text("8000000000\n")
    (machine / folder / usage).write_text("5000000000\n")
    (machine / folder / statistics).write_text(f"anon 1\n{inactive} 1000000000\n")
    assert memory.available() == 4_000_000_000
    (machine / folder / limit).write_text("80000000000\n")
    assert memory.available() == 16e9


def test_a_container_without_a_limit(machine):
    for name, text in (("memory.max", "max"), ("memory.current", "5"), ("memory.stat", "")):
        (machine / name).write_text(text)
    assert memory.available() == 16e9


def test_what_would_take_more_than_nine_tenths_is_refused(machine):
    memory.check(14.4e9, "--flag=x", "take less")
    with pytest.raises(RequestError) as caught:
        memory.check(14.5e9, "--flag=x", "take less")
    assert str(caught.value) == (
        "--flag=x needs 14.5 GB, but 16.0 GB of memory are available; take less"
    )
