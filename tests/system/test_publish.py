import json
import os
import pathlib

import pytest

from flowers_tpu.system import publish
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.folders import DATA_SET, LOCK
from flowers_tpu.system.publish import mark, published


def files(folder):
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def publishing(path, **how):
    return published(str(path), "output_dir", DATA_SET, **how)


def make(path, content="new", **how):
    with publishing(path, **how) as folder:
        (pathlib.Path(folder) / "train").mkdir()
        (pathlib.Path(folder) / "train" / "shard").write_text(content)
        mark(folder, DATA_SET, {"seed": 3})


def shards(tmp_path):
    return {name: text for name, text in files(tmp_path).items() if name.endswith("shard")}


def test_a_folder_appears_at_the_end(tmp_path):
    with publishing(tmp_path / "data") as folder:
        (pathlib.Path(folder) / "shard").write_text("new")
        assert not (tmp_path / "data").exists()
    assert files(tmp_path) == {"data/shard": "new"}


def test_the_marker_has_what_is_to_be_known_and_the_files(tmp_path):
    make(tmp_path / "data")
    marker = json.loads((tmp_path / "data" / DATA_SET.marker).read_text())
    assert marker == {"seed": 3, "files": ["train/shard"]}


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    assert shards(tmp_path) == {"data/train/shard": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_new(tmp_path, error):
    make(tmp_path / "data", "old")
    before = files(tmp_path)
    for name in ("data", "other"):
        with pytest.raises(error), publishing(tmp_path / name, overwrite=True) as folder:
            (pathlib.Path(folder) / "shard").write_text("half")
            raise error
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_earlier_one_is_replaced_only_if_asked_to(tmp_path):
    make(tmp_path / "data", "old")
    with pytest.raises(RequestError, match=r"data: already exists; .*--overwrite"):
        make(tmp_path / "data")
    assert shards(tmp_path) == {"data/train/shard": "old"}
    make(tmp_path / "data", overwrite=True)
    assert shards(tmp_path) == {"data/train/shard": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("stranger", ["notes.txt", "train/mine.txt", "runs/a/scores.json"])
def test_other_files_are_never_deleted(tmp_path, stranger):
    make(tmp_path / "data", "old")
    (tmp_path / "data" / stranger).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / stranger).write_text("mine")
    before = files(tmp_path)
    with pytest.raises(RequestError, match=f"1 files that are no part .*{stranger}"):
        make(tmp_path / "data", overwrite=True)
    assert files(tmp_path) == before


def test_other_files_that_come_meanwhile_are_kept(tmp_path):
    make(tmp_path / "data", "old")
    with (
        pytest.raises(RequestError, match=r"notes\.txt"),
        publishing(tmp_path / "data", overwrite=True),
    ):
        (tmp_path / "data" / "notes.txt").write_text("mine")
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"
    assert shards(tmp_path) == {"data/train/shard": "old"}


@pytest.mark.parametrize("marker", [None, "no JSON", "{}"])
def test_what_belongs_to_nobody_is_not_overwritten(tmp_path, marker):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    if marker is not None:
        (tmp_path / "data" / DATA_SET.marker).write_text(marker)
    before = files(tmp_path)
    with pytest.raises(RequestError, match="does not touch it; choose another folder"):
        make(tmp_path / "data", overwrite=True)
    assert files(tmp_path) == before


def test_a_file_in_its_place_is_kept(tmp_path):
    (tmp_path / "data").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RequestError, match="data: "):
            make(tmp_path / "data", overwrite=overwrite)
    assert files(tmp_path) == {"data": "mine"}


def leave_unfinished(path):
    """What a process leaves that is killed while it writes."""
    writing = publishing(path, overwrite=True)
    folder = pathlib.Path(writing.__enter__())
    (folder / "val").mkdir()
    (folder / "val" / "shard").write_text("half")
    (folder / "half.csv").write_text("half")
    return writing


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "data.part" / "train").mkdir(parents=True)
    for name in (LOCK, "train/shard", "half.csv"):
        (tmp_path / "data.part" / name).write_text("half")
    make(tmp_path / "data")
    assert shards(tmp_path) == {"data/train/shard": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_killed_between_the_two_renames(tmp_path):
    make(tmp_path / "data", "old")
    (tmp_path / "data").rename(tmp_path / "data.replaced")
    make(tmp_path / "data.part", "whole")
    make(tmp_path / "data")
    assert shards(tmp_path) == {"data/train/shard": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_killed_before_the_replaced_one_was_removed(tmp_path):
    make(tmp_path / "data", "old")
    make(tmp_path / "data.replaced", "older")
    make(tmp_path / "data", overwrite=True)
    assert shards(tmp_path) == {"data/train/shard": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_killed_while_the_replaced_one_was_removed(tmp_path):
    make(tmp_path / "data", "old")
    make(tmp_path / "data.replaced", "older")
    real = publish.shutil.rmtree

    def killed(path, *args, **how):
        if str(path).endswith("data.replaced"):
            raise SystemExit  # all but the marker is gone
        real(path, *args, **how)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(publish.shutil, "rmtree", killed)
        publish._remove(str(tmp_path / "data.replaced"), DATA_SET)
    assert list(files(tmp_path / "data.replaced")) == [DATA_SET.marker]
    make(tmp_path / "data", overwrite=True)
    assert shards(tmp_path) == {"data/train/shard": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failure_between_the_two_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    make(tmp_path / "data", "old")
    rename = os.rename

    def fail(source, target):
        if source.endswith(".part"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(publish.os, "rename", fail)
    with pytest.raises(OSError):
        make(tmp_path / "data", overwrite=True)
    assert shards(tmp_path) == {"data/train/shard": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_volume_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(publish.os.path, "ismount", lambda path: path == str(tmp_path / "data"))
    with pytest.raises(RequestError, match="is a volume of its own"):
        make(tmp_path / "data")


def test_another_process_is_not_disturbed(tmp_path):
    writing = leave_unfinished(tmp_path / "data")
    message = rf"--output_dir=.*data\.part: is in use by process {os.getpid()} on .*; wait for it"
    with pytest.raises(RequestError, match=message):
        make(tmp_path / "data")
    assert shards(tmp_path) == {"data.part/val/shard": "half"}
    writing.__exit__(None, None, None)
    assert shards(tmp_path) == {"data/val/shard": "half"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.part", "is needed .* holds other files"),
        ("data.replaced", "is no data set of scripts/make_tfrecords.py"),
    ],
)
def test_a_folder_of_somebody_elses_is_not_cleared(tmp_path, name, message):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match=rf"{name}: {message}"):
        make(tmp_path / "data")
    assert files(tmp_path) == {f"{name}/mine.txt": "mine"}


def test_a_path_is_shown_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for written in ("there", "./there/", "link"):
        with (
            pytest.raises(RequestError, match=f"^--output_dir={written}: already exists"),
            published(written, "output_dir", DATA_SET),
        ):
            pass
