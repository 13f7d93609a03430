import json
import os

import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.runs import folder
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.spec import Resolved, Spec, resolve
from flowers_tpu.system import files, folders
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts

CPU = Facts("CPU")


def begin(path, spec=None):
    run = RunFolder(str(path))
    spec = spec or Spec.of()
    run.begin(spec, resolve(spec, CPU), {"python": "3.11"}, {"class_names": ["a", "b"]})
    return run


# Who may use it


def opened_run(path):
    """The run in a folder, whose results go there too."""
    return folder.results_folder(path, "")


def test_a_run_in_use_is_refused(tmp_path):
    path = str(tmp_path / "run")
    begin(path)
    for open_ in (folder.opened, opened_run):
        with folder.opened(path) as run:
            assert run.is_run() and not run.is_scored()
            in_use = f"--run_dir=.*run: is in use by process {os.getpid()} on .* since 20"
            with pytest.raises(RequestError, match=in_use), open_(path):
                pass
            with folder.results_folder(path, str(tmp_path / "results")) as (run, output):
                assert (run.path, output.path) == (path, str(tmp_path / "results"))
        with open_(path):  # a lock that was given back is not in the way
            pass


def test_a_new_run_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RequestError), folder.opened(str(tmp_path / "new" / "run")) as run:
        assert not run.is_run()
        raise RequestError("no such data")
    assert not (tmp_path / "new" / "run").exists()


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in (("file", "is a file"), ("", r"holds files but no run \(file")):
        with (
            pytest.raises(RequestError, match=message),
            folder.opened(str(tmp_path / path)),
        ):
            pass
        with (
            pytest.raises(RequestError, match=r"no run there .*config\.json"),
            opened_run(str(tmp_path / path)),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    # What a process leaves that is killed before it has written config.json.
    half = tmp_path / "half"
    half.mkdir()
    (half / "flags.txt").write_text("")
    with folder.opened(str(half)) as run:
        assert not run.is_run()


def test_what_comes_while_the_lock_is_taken_is_seen(tmp_path, monkeypatch):
    """Another process writes there between the first look and the lock."""
    path = tmp_path / "shared"
    real = folders.locked

    def locked(*args):
        path.mkdir()
        (path / "thesis.tex").write_text("precious")
        return real(*args)

    monkeypatch.setattr(folders, "locked", locked)
    with pytest.raises(RequestError, match="holds files but no run"), folder.opened(str(path)):
        pass
    assert (path / "thesis.tex").read_text() == "precious"


# Which flags a run that continues may change


def resolved(batch, precision="float32"):
    return Resolved(batch, precision, "host")


@pytest.mark.parametrize(
    ("changes", "now", "refused"),
    [
        ({}, resolved(16), ()),
        ({}, resolved(64), ()),  # the same flags on other devices
        ({"batch_size_per_replica": 4}, resolved(16), ()),  # the same global batch in another way
        ({"global_batch_size": 16}, resolved(16), ()),
        ({"batch_size_per_replica": 8}, resolved(8), ("--batch_size_per_replica was 16, is 8",)),
        ({"global_batch_size": 32}, resolved(32), ("--global_batch_size was 0, is 32",)),
        ({"tpu": "local", "run_dir": "elsewhere", "steps_per_loop": 3}, resolved(16), ()),
        ({"seed": 3, "l2": 0.1}, resolved(16), ("--seed was 0, is 3", "--l2 was 0.0, is 0.1")),
        ({"precision": "float32"}, resolved(16), ()),  # what auto came to
        (
            {"precision": "bfloat16"},
            resolved(16, "bfloat16"),
            ("--precision was auto, is bfloat16",),
        ),
        ({"augment_on": "host"}, resolved(16), ()),
        # Where the data lie: that they are the same is told by their fingerprints.
        ({"data_dir": "moved", "classes": "moved.txt"}, resolved(16), ()),
    ],
)
def test_which_flags_may_change(tmp_path, changes, now, refused):
    run = begin(tmp_path / "run")
    spec = Spec.of(**changes)
    if refused:
        with pytest.raises(RequestError) as error:
            run.check_same_flags(spec, now)
        assert all(text in str(error.value) for text in refused)
        assert str(error.value).count(" was ") == len(refused)
    else:
        run.check_same_flags(spec, now)


def test_without_fingerprints_data_in_another_place_are_refused(tmp_path):
    """As of a run of version 0.1, of which nothing tells its data but their place."""
    run = begin(tmp_path / "run")
    os.remove(run.file("data.json"))
    with pytest.raises(RequestError, match="--data_dir was example, is moved"):
        run.check_same_flags(Spec.of(data_dir="moved"), resolved(16))


# What is in it


def test_a_new_run_says_what_it_is(tmp_path):
    spec = Spec.of(seed=3, report=False)
    run = begin(tmp_path / "run", spec)
    assert run.read_specs() == (spec, Resolved(16, "float32", "host"))
    assert run.read_json("environment.json") == {"python": "3.11"}
    assert run.read_json("data.json") == {"class_names": ["a", "b"]}
    flags = (tmp_path / "run" / "flags.txt").read_text().splitlines()
    expected = {"--seed=3", "--noreport", "--global_batch_size=16", "--precision=float32"}
    assert expected <= set(flags) and "--augment_on=host" in flags
    # As version 0.1 wrote them, for whoever reads them: flags by name, in one object.
    assert json.loads((tmp_path / "run" / "config.json").read_text())["flags"] == spec.flat()


def test_what_concerns_one_command_is_no_part_of_the_run(tmp_path):
    """The flags of the run give it again: nothing is deleted, ended or timed once more."""
    for given in ({"overwrite": True}, {"finish": True}, {"max_hours": 2.0}):
        run = begin(tmp_path / "run", Spec.of(seed=3, **given))
        assert run.read_specs()[0] == Spec.of(seed=3)
        flags = (tmp_path / "run" / "flags.txt").read_text().splitlines()
        assert {"--seed=3", "--nooverwrite", "--nofinish", "--max_hours=0.0"} <= set(flags)


def test_a_folder_without_config_json_is_no_run_yet(tmp_path, monkeypatch):
    """Killed while the first files were written: `config.json` is the last of them."""
    written = []
    real = files.write_atomically

    def write(path, content):
        written.append(os.path.basename(path))
        real(path, content)

    monkeypatch.setattr(files, "write_atomically", write)
    begin(tmp_path / "run")
    assert written == ["environment.json", "data.json", "flags.txt", "config.json"]


def test_flags_of_another_version_are_named(tmp_path):
    run = begin(tmp_path / "run")
    saved = run.read_json("config.json")
    saved["flags"]["swirl"] = saved["flags"]["bend"] = 0.5
    run.write_json("config.json", saved)
    with pytest.raises(RequestError, match=r"run/config\.json: .* not know \(--bend, --swirl\)"):
        run.read_specs()


def test_only_a_run_is_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    RunFolder(str(tmp_path)).remove()
    assert (tmp_path / "thesis.tex").exists()
    with folder.opened(str(tmp_path / "run")):
        run = begin(tmp_path / "run")
        os.makedirs(run.file("checkpoints", "latest"))
        run.remove()
        assert os.listdir(tmp_path / "run") == ["lock"]
    assert not (tmp_path / "run").exists()


def test_what_makes_it_a_run_is_removed_last(tmp_path, monkeypatch):
    run = begin(tmp_path / "run")
    run.write_table("history.csv", pd.DataFrame({"epoch": [1]}))
    removed = []
    monkeypatch.setattr(tf.io.gfile, "remove", lambda path: removed.append(path))
    run.remove()
    assert len(removed) == 5 and removed[-1] == run.file("config.json")


def test_tables_come_back_as_they_were(tmp_path):
    run = RunFolder(str(tmp_path))
    assert run.read_table("history.csv").empty
    table = pd.DataFrame({"loss": [1 / 3, 1e-300, 2.0], "stage": ["a", "b", "c"]})
    run.write_table("history.csv", table)
    pd.testing.assert_frame_equal(run.read_table("history.csv"), table, check_exact=True)


def test_a_run_one_level_off_is_named(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    for given, meant in (
        (tmp_path, f"; did you mean {tmp_path}/one or {tmp_path}/two[?]; scripts/train.py"),
        (tmp_path / "one" / "checkpoints", f"; did you mean {tmp_path}/one[?]; scripts/train.py"),
        (tmp_path / "none", r"config\.json\); scripts/train.py"),
    ):
        with pytest.raises(RequestError, match=meant):
            folder.RunFolder(str(given)).read_specs()
