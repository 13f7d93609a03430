import subprocess
import types

import pytest

import flowers_tpu
from flowers_tpu.runs import environment as environment_lib
from flowers_tpu.runs.environment import environment
from flowers_tpu.system.facts import Facts


def test_environment_names_versions_and_devices():
    about = environment(Facts("CPU", 2))
    assert about["packages"]["tensorflow"].startswith("2.")
    assert about["replicas"] == 2 and about["device_kind"] == "CPU"
    assert any("CPU" in device for device in about["devices"])


@pytest.mark.parametrize(("is_foreign", "commit"), [(False, "abc123"), (True, None)])
def test_the_commit_is_that_of_the_package(monkeypatch, is_foreign, commit):
    """Not that of another project's repository which the package was installed in."""
    asked = []

    def run(command, **how):
        asked.append(command)
        return types.SimpleNamespace(returncode=int(is_foreign), stdout="abc123\n")

    monkeypatch.setattr(environment_lib.subprocess, "run", run)
    assert environment(Facts("CPU"))["git_commit"] == commit
    assert {command[2] for command in asked} == {flowers_tpu.__path__[0]}


def test_there_may_be_no_git(monkeypatch):
    for error in (FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)):

        def run(*command, error=error, **how):
            raise error

        monkeypatch.setattr(environment_lib.subprocess, "run", run)
        assert environment(Facts("CPU"))["git_commit"] is None
