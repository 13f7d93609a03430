import contextlib
import fcntl
import os
import re
import subprocess
import sys
import threading

import pytest

from flowers_tpu.system import folders
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.folders import (
    BENCHMARK,
    LOCK,
    OWNERS,
    RUN,
    check_usable,
    locked,
)

SECONDS = 20  # more than a lock takes to be given


def refusal(path, owner):
    with pytest.raises(RequestError) as error:
        check_usable(str(path), "output_dir", owner)
    return str(error.value).removeprefix(f"--output_dir={path}: ")


# What may be used


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.what)
def test_what_is_not_there_or_empty_or_ones_own_may_be_used(tmp_path, owner):
    check_usable(str(tmp_path / "absent"), "output_dir", owner)
    check_usable(str(tmp_path), "output_dir", owner)
    (tmp_path / LOCK).write_text("")
    check_usable(str(tmp_path), "output_dir", owner)
    (tmp_path / owner.marker).write_text("{}")
    (tmp_path / "plots").mkdir()
    check_usable(str(tmp_path), "output_dir", owner)
    for other in OWNERS:
        if other != owner:
            message = (
                f"holds {'an' if owner.what[0] in 'aeiou' else 'a'} {owner.what}; choose another"
            )
            assert refusal(tmp_path, other) == f"{message} folder"


def test_markers_are_told_apart():
    assert len({owner.marker for owner in OWNERS}) == len(OWNERS)


def test_what_a_killed_run_leaves_before_its_marker_is_a_runs(tmp_path):
    (tmp_path / "flags.txt").write_text("")
    (tmp_path / "environment.json").write_text("")
    check_usable(str(tmp_path), "run_dir", RUN)
    assert refusal(tmp_path, BENCHMARK) == (
        "holds files but no benchmark (environment.json, …); choose another folder"
    )


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    message = "holds files but no run (notes.txt, …); choose another folder"
    assert refusal(tmp_path, RUN) == message
    assert refusal(tmp_path / "notes.txt", RUN) == "is a file, not a folder; choose a folder"


def test_a_folder_that_cannot_be_made(tmp_path):
    folders.make(str(tmp_path / "a" / "b"), "run_dir")
    folders.make(str(tmp_path / "a" / "b"), "run_dir")  # it may be there
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"^--run_dir=.*/file/a: cannot be made \(.*director"):
        folders.make(str(tmp_path / "file" / "a"), "run_dir")


# Locks


def test_the_lock_is_the_systems(tmp_path):
    with locked(str(tmp_path), "run_dir"):
        with open(tmp_path / LOCK) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "flags.txt").write_text("")
    with open(tmp_path / LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_has_it_is_named(tmp_path):
    holding = (
        "import sys, flowers_tpu.system.folders as folders\n"
        f"with folders.locked({str(tmp_path)!r}, 'run_dir'):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        message = rf"^--run_dir={re.escape(str(tmp_path))}: is in use by process {holder.pid} on "
        with (
            pytest.raises(RequestError, match=rf"{message}.* since 20..-.*; wait for it, stop it"),
            locked(str(tmp_path), "run_dir"),
        ):
            pass
        holder.kill()  # which leaves the file, but not the lock
        holder.wait()
        assert (tmp_path / LOCK).exists()
        with locked(str(tmp_path), "run_dir"):
            assert f"process {os.getpid()} on" in (tmp_path / LOCK).read_text()


class Waiter(threading.Thread):
    """Waits for a folder's lock, with a file of its own, as another process would."""

    def __init__(self, path, monkeypatch):
        super().__init__(daemon=True)
        self.path, self.asks, self.has, self.may_end = path, *(threading.Event() for _ in range(3))
        flock = fcntl.flock

        def heard(lock, how):
            if threading.current_thread() is self:
                assert how == fcntl.LOCK_EX
                self.asks.set()  # and from here on it waits
            flock(lock, how)

        monkeypatch.setattr(folders.fcntl, "flock", heard)

    def run(self):
        with locked(str(self.path), "run_dir", wait=True):
            self.has.set()
            self.may_end.wait(SECONDS)


def is_locked(path):
    with contextlib.suppress(RequestError), locked(str(path), "run_dir"):
        return False
    return True


@pytest.mark.parametrize("removed", [True, False], ids=["lock removed", "lock kept"])
def test_another_waits_until_it_is_free(tmp_path, monkeypatch, removed):
    """If nothing is left in the folder, its holder removes it, and the lock with it."""
    path, held = tmp_path / "run", contextlib.ExitStack()
    with held:
        held.enter_context(locked(str(path), "run_dir"))
        waiter = Waiter(path, monkeypatch)
        waiter.start()
        assert waiter.asks.wait(SECONDS)
        assert not waiter.has.wait(0.1)
        if not removed:
            (path / "flags.txt").write_text("")
    assert waiter.has.wait(SECONDS)
    # What it has is the lock that stands there now, not one of a file that is gone.
    assert is_locked(path)
    waiter.may_end.set()
    waiter.join()
    assert path.exists() is not removed


def test_an_empty_folder_is_removed_at_the_end(tmp_path):
    with locked(str(tmp_path / "a" / "run"), "run_dir"):
        assert (tmp_path / "a" / "run" / LOCK).exists()
    assert list((tmp_path / "a").iterdir()) == []
    with pytest.raises(ValueError), locked(str(tmp_path / "a"), "run_dir"):
        raise ValueError
    assert not (tmp_path / "a").exists()
    with locked(str(tmp_path / "kept"), "run_dir"):
        (tmp_path / "kept" / "flags.txt").write_text("")
    assert sorted(os.listdir(tmp_path / "kept")) == ["flags.txt", LOCK]


def test_a_lock_that_the_earlier_holder_removed_is_taken_anew(tmp_path, monkeypatch):
    """The file was opened while another process had it, which has removed it since."""
    flock, removed = fcntl.flock, []

    def remove_first(lock, how):
        if not removed:
            removed.append(lock.name)
            os.remove(lock.name)
            os.rmdir(tmp_path / "run")
        flock(lock, how)

    monkeypatch.setattr(folders.fcntl, "flock", remove_first)
    with locked(str(tmp_path / "run"), "run_dir"):
        monkeypatch.undo()
        assert removed == [str(tmp_path / "run" / LOCK)]
        assert (tmp_path / "run" / LOCK).exists() and is_locked(tmp_path / "run")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def fail(path, *arguments, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", fail)
    with (
        pytest.raises(RequestError, match=r"^--run_dir=.*: cannot be written \(.*denied"),
        locked(str(tmp_path), "run_dir"),
    ):
        pass


def test_a_bucket_has_no_lock():
    with locked("gs://no-such-bucket/run", "run_dir"):
        pass
