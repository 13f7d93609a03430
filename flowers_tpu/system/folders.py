"""Whose folder is this, may I write there, and who else does: for every folder that is made here.

A folder belongs to what made it, told by a file that nothing else writes. What may be there, what
is refused, and in which words, stands here once. `publish.py` makes folders appear whole.
"""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from typing import NamedTuple, TextIO

import tensorflow as tf
from absl import logging

from flowers_tpu.system import files, workers
from flowers_tpu.system.errors import RequestError

LOCK = "lock"
TOKEN = "workers"  # by which several workers see that it is one folder


class UnwritableError(RequestError):
    """Nothing can be written to a folder."""


class Owner(NamedTuple):
    """What makes folders of a kind.

    Attributes:
        what: such a folder, for messages.
        marker: the file that makes a folder one.
        early: what a process that is killed before it has written the marker may leave.
    """

    what: str
    marker: str
    early: frozenset[str] = frozenset({LOCK})


RUN = Owner(
    "run", "config.json", frozenset({"flags.txt", "environment.json", "data.json", LOCK, TOKEN})
)
EXPLORATION = Owner("exploration", "summary.json")
RESULTS = Owner("folder of a run's results", "results.json")
DATA_SET = Owner("data set of scripts/make_tfrecords.py", "conversion.json")
DRAWN_FLOWERS = Owner("data set of drawn flowers", "drawn_flowers.json")
BENCHMARK = Owner("benchmark", "benchmark.json")
TPU_CHECK = Owner("TPU check", "tpu_check.json")
EXPORT = Owner("export of a run", "export.json")
ENSEMBLE = Owner("ensemble of runs", "ensemble.json")
PSEUDO_LABELED = Owner("data set of photos that a run has labeled", "pseudo_labels.json")
OWNERS = (
    *(RUN, EXPLORATION, RESULTS, DATA_SET, DRAWN_FLOWERS, BENCHMARK, TPU_CHECK, EXPORT),
    *(ENSEMBLE, PSEUDO_LABELED),
)


def belongs_to(path: str, owner: Owner) -> bool:
    """Returns whether a folder is of this kind."""
    return files.exists(files.join(path, owner.marker))


def check_usable(path: str, flag: str, owner: Owner) -> None:
    """Refuses a path where no folder of a kind can be made, or is.

    Args:
        path: not there, an empty folder, or what an owner may use again.
        flag: that gives the path, for messages.
        owner: what wants to write there.

    Raises:
        RequestError: it is a file, or holds anything else.
    """
    if not files.exists(path):
        return
    if not files.is_dir(path):
        raise RequestError(f"--{flag}={path}: is a file, not a folder; choose a folder")
    if belongs_to(path, owner):
        return
    others = sorted(set(files.list_dir(path)) - owner.early)
    if not others:
        return
    for other in OWNERS:
        if other.marker in others:
            article = "an" if other.what[0] in "aeiou" else "a"
            raise RequestError(
                f"--{flag}={path}: holds {article} {other.what}; choose another folder"
            )
    raise RequestError(
        f"--{flag}={path}: holds files but no {owner.what} ({others[0]}, …); choose another folder"
    )


def make(path: str, flag: str) -> None:
    """Makes a folder if it is not there.

    Raises:
        RequestError: it cannot be made.
    """
    try:
        files.make_dirs(path)
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", error)
        raise RequestError(f"--{flag}={path}: cannot be made ({reason})") from error


def last_life(path: str) -> float | None:
    """Returns when a process was last seen to hold the lock of a folder, seconds since 1970."""
    try:
        return os.stat(os.path.join(path, LOCK)).st_mtime
    except OSError:  # nobody ever did, or it is on `gs://`
        return None


@contextlib.contextmanager
def locked(path: str, flag: str, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes off a folder, which is made if it is not there.

    The operating system holds the lock, so that of a dead process is gone. A folder that holds
    nothing but the lock at the end is removed. On `gs://` there is no such thing as a lock.

    Args:
        path: of the folder.
        flag: that gives it, for messages.
        wait: until another process that has it ends, instead of refusing.

    Raises:
        RequestError: another process has it, or the folder cannot be made.
    """
    if not workers.may_write():
        yield
        return
    if "://" in path:
        logging.warning(
            "%s: nothing locks a folder there: see to it that no other process uses it meanwhile",
            path,
        )
        yield
        return
    lock = _take(path, flag, wait)
    try:
        yield
    finally:
        if _holds_nothing_else(path):
            os.remove(os.path.join(path, LOCK))
            with contextlib.suppress(OSError):  # it may be a volume, or somebody's working folder
                os.rmdir(path)
        lock.close()


def _take(path: str, flag: str, wait: bool) -> TextIO:
    name = os.path.join(path, LOCK)
    while True:
        make(path, flag)
        try:
            lock = open(name, "a+", encoding="utf-8")  # noqa: SIM115  (open as long as it holds)
        except FileNotFoundError:
            continue  # another process has just removed the empty folder
        except OSError as error:
            raise UnwritableError(f"--{flag}={path}: cannot be written ({error})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise RequestError(
                f"--{flag}={path}: is in use by {holder}; wait for it, stop it, or choose another "
                "folder"
            ) from error
        if _is_still(name, lock):
            break
        lock.close()  # the process that had it has removed the file
    lock.truncate(0)
    lock.write(
        f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    )
    lock.flush()
    return lock


def _is_still(name: str, lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.stat(name), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def _holds_nothing_else(path: str) -> bool:
    try:
        return os.listdir(path) == [LOCK]
    except OSError:
        return False
