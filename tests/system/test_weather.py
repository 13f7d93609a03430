"""Files that cannot be reached just now: tried again, never taken for damage, nothing replaced."""

import errno
import os

import pytest
import tensorflow as tf

from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.training import checkpoints as checkpoints_lib

UNAVAILABLE = tf.errors.UnavailableError(None, None, "the bucket is away")
PASSING = [
    UNAVAILABLE,
    tf.errors.DeadlineExceededError(None, None, "slow"),
    tf.errors.ResourceExhaustedError(None, None, "too many requests"),
]
LASTING = [
    tf.errors.PermissionDeniedError(None, None, "forbidden"),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    tf.errors.ResourceExhaustedError(None, None, "x: No space left on device"),
]


@pytest.fixture
def slept(monkeypatch):
    """The pauses that were made, of a clock that costs no time."""
    pauses = []
    monkeypatch.setattr(files, "_sleep", pauses.append)
    return pauses


class Failing:
    """Stands in for a function: raises an error so many times, or always, then works."""

    def __init__(self, function, error, times=None):
        self.function, self.error, self.left = function, error, times
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.left is None or self.left > 0:
            self.left = None if self.left is None else self.left - 1
            raise self.error
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("error", PASSING)
def test_what_passes_is_tried_again_for_two_minutes(slept, error):
    works = Failing(lambda: 7, error, times=5)
    assert files.patiently(works, "gs://b/f") == 7
    assert works.calls == 6 and len(slept) == 5 and sum(slept) == 120
    with pytest.raises(RunError, match=r"gs://b/f: cannot be reached .*tried 6 times"):
        files.patiently(Failing(None, error), "gs://b/f")


@pytest.mark.parametrize("error", LASTING)
def test_what_lasts_is_said_at_once(slept, error):
    with pytest.raises(type(error)):
        files.patiently(Failing(None, error), "f")
    assert slept == []


@pytest.mark.parametrize("error", [*PASSING[:1], *LASTING])
def test_trouble_of_files_ends_with_one_line(error):
    with pytest.raises(RunError, match="the same command continues"), files.naming_trouble():
        raise error


def test_other_errors_are_left_as_they_are():
    for error in (tf.errors.DataLossError(None, None, "x"), FileNotFoundError(), KeyError()):
        with pytest.raises(type(error)), files.naming_trouble():
            raise error


READERS = {
    "read_bytes": lambda path: files.read_bytes(path),
    "read_text": lambda path: files.read_text(path),
    "size": lambda path: files.size(path),
    "exists": lambda path: files.exists(path),
    "is_dir": lambda path: files.is_dir(path),
    "list_dir": lambda path: files.list_dir(os.path.dirname(path)),
}
WRITERS = {
    "write": lambda path: files.write_atomically(path, "new"),
    "rename": lambda path: files.rename(path, f"{path}2"),
    "remove": lambda path: files.remove(path),
    "make_dirs": lambda path: files.make_dirs(f"{path}.d/e"),
}
UNDER = {
    **{"read_bytes": "GFile", "read_text": "GFile", "size": "stat", "exists": "exists"},
    **{"is_dir": "isdir", "list_dir": "listdir", "write": "GFile", "rename": "rename"},
    **{"remove": "remove", "make_dirs": "makedirs"},
}


@pytest.mark.parametrize("name", [*READERS, *WRITERS])
def test_every_reader_and_writer_is_patient(slept, tmp_path, monkeypatch, name):
    path = tmp_path / "file"
    path.write_text("old")
    whole = {**READERS, **WRITERS}[name](str(path))
    path.write_text("old")
    function = getattr(tf.io.gfile, UNDER[name])
    failing = Failing(function, UNAVAILABLE, times=2)
    monkeypatch.setattr(tf.io.gfile, UNDER[name], failing)
    assert {**READERS, **WRITERS}[name](str(path)) == whole
    assert failing.calls >= 3 and len(slept) == 2


@pytest.mark.parametrize("error", LASTING)
@pytest.mark.parametrize("under", ["GFile", "rename"])
def test_what_cannot_be_written_leaves_the_old_file(slept, tmp_path, monkeypatch, under, error):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(tf.io.gfile, under, Failing(None, error))
    with pytest.raises(RunError, match=f"{path}: cannot be written"):
        files.write_atomically(str(path), "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


# Checkpoints


@pytest.fixture
def saved(tmp_path):
    """A folder with two checkpoints, numbers 1 and 2."""
    variable = tf.Variable(1.0)
    kept = checkpoints_lib._Kept(tf.train.Checkpoint(v=variable), str(tmp_path / "latest"))
    kept.save()
    variable.assign(2.0)
    kept.save()
    return tmp_path / "latest"


@pytest.mark.parametrize("error", [*PASSING, *LASTING[:2]])
def test_a_checkpoint_that_cannot_be_reached_is_not_damaged(slept, saved, monkeypatch, error):
    """TensorFlow's reader says the same of both; the bytes say which it is."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def reader(path):
        raise tf.errors.OpError(None, None, "Unable to open table file", 2)

    monkeypatch.setattr(tf.train, "load_checkpoint", reader)
    monkeypatch.setattr(tf.io.gfile, "GFile", Failing(None, error))
    with pytest.raises((RunError, type(error))):
        checkpoints_lib.newest_sound(str(saved))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_checkpoint_that_can_be_read_and_is_wrong_is_damaged(slept, saved):
    data = next(saved.glob("ckpt-2.data*"))
    data.write_bytes(data.read_bytes()[:-1])
    assert checkpoints_lib.newest_sound(str(saved)) == str(saved / "ckpt-1")
    assert slept == []


def test_a_save_is_tried_again(slept, saved, monkeypatch):
    kept = checkpoints_lib._Kept(tf.train.Checkpoint(v=tf.Variable(3.0)), str(saved))
    failing = Failing(tf.train.CheckpointManager.save, UNAVAILABLE, times=1)
    monkeypatch.setattr(tf.train.CheckpointManager, "save", lambda *a, **k: failing(*a, **k))
    kept.save(3)
    assert len(slept) == 1
    assert sorted(p.name for p in saved.glob("*.index")) == ["ckpt-2.index", "ckpt-3.index"]


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?b", "a\\b", "{a,b}", "plain"])
def test_names_that_tensorflow_takes_for_patterns(tmp_path, name):
    directory = str(tmp_path / name / "latest")
    variable = tf.Variable(5.0)
    checkpoints_lib._Kept(tf.train.Checkpoint(v=variable), directory).save()
    path = checkpoints_lib.newest_sound(directory)
    assert path == os.path.join(directory, "ckpt-1")
    variable.assign(0.0)
    checkpoints_lib._restore(tf.train.Checkpoint(v=variable), path)
    assert variable.numpy() == 5.0


def test_such_a_name_on_a_bucket_is_refused():
    with pytest.raises(RequestError, match=r"gs://b/a\[1\]: TensorFlow takes the characters"):
        files.without_pattern("gs://b/a[1]")
