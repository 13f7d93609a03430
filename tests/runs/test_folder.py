import dataclasses
import subprocess
import sys

import pytest

from flowers_tpu.runs import folder
from flowers_tpu.options import Config
from flowers_tpu.system.errors import RequestError
from flowers_tpu.runs.folder import RunDirectory

HOLD = """
import sys, time
from flowers_tpu.run_directory import RunDirectory
run = RunDirectory(sys.argv[1])
run.lock()
print("locked", flush=True)
time.sleep(100)
"""


def test_two_processes_on_one_run(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RequestError, match=f"is in use by process {holder.pid} on .* since 20"):
            RunDirectory(str(tmp_path)).lock()
    finally:
        holder.kill()
        holder.wait()
    RunDirectory(str(tmp_path)).lock()  # the lock of a dead process is not in the way


def begin(path, given, resolved):
    run = RunDirectory(str(path))
    run.begin(given, resolved, {})
    return run


def resolved(config, batch, replicas=1, precision="float32"):
    return dataclasses.replace(
        config,
        global_batch_size=batch,
        batch_size_per_replica=batch // replicas,
        precision=precision,
    )


@pytest.mark.parametrize(
    ("changes", "batch", "replicas", "refused"),
    [
        ({}, 16, 1, ()),
        ({}, 64, 4, ()),  # the same flags on other devices
        ({"batch_size_per_replica": 4}, 16, 4, ()),  # the same global batch in another way
        ({"global_batch_size": 16}, 16, 4, ()),
        ({"batch_size_per_replica": 8}, 8, 1, ("--batch_size_per_replica was 16, is 8",)),
        ({"global_batch_size": 32}, 32, 1, ("--global_batch_size was 0, is 32",)),
        ({"tpu": "local", "run_dir": "elsewhere", "steps_per_loop": 3}, 16, 1, ()),
        ({"seed": 3, "l2": 0.1}, 16, 1, ("--seed was 0, is 3", "--l2 was 0.0, is 0.1")),
        ({"precision": "float32"}, 16, 1, ()),  # what auto came to
    ],
)
def test_which_flags_may_change(tmp_path, changes, batch, replicas, refused):
    given = Config()
    run = begin(tmp_path / "run", given, resolved(given, 16))
    now = dataclasses.replace(given, **changes)
    if refused:
        with pytest.raises(RequestError) as error:
            folder.check_same_flags(run, now, resolved(now, batch, replicas))
        assert all(text in str(error.value) for text in refused)
    else:
        folder.check_same_flags(run, now, resolved(now, batch, replicas))


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="is a file"):
        RunDirectory(str(tmp_path / "file")).check_usable()
    with pytest.raises(RequestError, match=r"holds files but no run \(file"):
        RunDirectory(str(tmp_path)).check_usable()
    with pytest.raises(RequestError, match="no run there"):
        RunDirectory(str(tmp_path)).read_configs()
    RunDirectory(str(tmp_path / "new")).check_usable()
    # What a process leaves that is killed before it wrote config.json.
    half = tmp_path / "half"
    half.mkdir()
    (half / "flags.txt").write_text("")
    RunDirectory(str(half)).check_usable()


def test_flags_of_another_version_are_named(tmp_path):
    run = begin(tmp_path / "run", Config(), Config())
    saved = run.read_json("config.json")
    saved["flags"]["mixup"] = saved["resolved"]["cutmix"] = 0.5
    run.write_json("config.json", saved)
    with pytest.raises(RequestError, match=r"run/config\.json: .* not know \(--cutmix, --mixup\)"):
        run.read_configs()


def test_only_a_run_is_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    RunDirectory(str(tmp_path)).remove()
    assert (tmp_path / "thesis.tex").exists()
    run = begin(tmp_path / "run", Config(), Config())
    run.remove()
    assert not (tmp_path / "run").exists()


def test_environment_names_versions_and_devices():
    about = folder.environment("CPU", 2)
    assert about["packages"]["tensorflow"].startswith("2.")
    assert about["replicas"] == 2 and about["device_kind"] == "CPU"
    assert any("CPU" in device for device in about["devices"])
