"""The one layer through which files are read and written, locally or on `gs://`.

Weather is not damage: what is unavailable, slow or exhausted for a moment is tried again; what is
forbidden, full or broken is said at once, and nothing is replaced.
"""

import atexit
import contextlib
import errno
import functools
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf
from absl import logging

from flowers_tpu.system import workers
from flowers_tpu.system.errors import RequestError, RunError, first_line

_PAUSES = (4.0, 8.0, 16.0, 32.0, 60.0)  # seconds before each further try: two minutes in all
_sleep: Callable[[float], None] = time.sleep  # tests put another clock in its place

# What may be over the next moment.
_PASSING = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.ResourceExhaustedError,
    tf.errors.AbortedError,
)
# Of which nothing says that the content of a file is wrong.
_DENIED = (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError)
_SYSTEM = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = re.compile(r"No space left|[Qq]uota exceeded")

# What TensorFlow takes for a pattern in the path of a checkpoint.
_PATTERN = re.compile(r"[\[\]*?\\{}]")

_Result = TypeVar("_Result")


def patiently(work: Callable[[], _Result], path: str) -> _Result:
    """Does what reads or writes a file; tries again while that cannot be done just now.

    Args:
        work: what to do; done again from its beginning.
        path: of the file, for messages.

    Raises:
        RunError: it could not be done within two minutes.
        Exception: anything else that `work` raises.
    """
    for pause in (*_PAUSES, None):
        try:
            return work()
        except _PASSING as error:
            if _FULL.search(str(error)):
                raise
            if pause is None:
                raise RunError(
                    f"{path}: cannot be reached ({first_line(error)}; tried {len(_PAUSES) + 1} "
                    "times in two minutes). Everything is as it was; the same command continues"
                ) from error
            logging.warning("%s: %s; trying again in %.0f s", path, first_line(error), pause)
            _sleep(pause)
    raise AssertionError("unreachable")


def is_trouble(error: BaseException) -> bool:
    """Returns whether an error says that a file cannot be reached, not that it is wrong."""
    if isinstance(error, (*_PASSING, *_DENIED)):
        return True
    if isinstance(error, OSError):
        return error.errno in _SYSTEM
    # TensorFlow makes these of what the operating system says.
    return isinstance(error, tf.errors.OpError) and bool(
        re.search(r"Input/output error|Read-only file system|Permission denied", str(error))
    )


@contextlib.contextmanager
def naming_trouble() -> Iterator[None]:
    """Turns errors of files that cannot be reached into one line for a person."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        if not is_trouble(error):
            raise
        raise RunError(
            f"{first_line(error)}. What was saved is as it was; mend this, and the same command "
            "continues"
        ) from error


def exists(path: str) -> bool:
    """Returns whether there is a file or folder."""
    return patiently(lambda: tf.io.gfile.exists(path), path)


def is_dir(path: str) -> bool:
    """Returns whether there is a folder."""
    return patiently(lambda: tf.io.gfile.isdir(path), path)


def list_dir(path: str) -> list[str]:
    """Returns the names in a folder, sorted; on `gs://` too without the slashes of folders."""
    return sorted(name.rstrip("/") for name in patiently(lambda: tf.io.gfile.listdir(path), path))


def make_dirs(path: str) -> None:
    """Makes a folder, with those above it, if it is not there."""
    if workers.may_write():
        patiently(lambda: tf.io.gfile.makedirs(path), path)


def remove(path: str) -> None:
    """Removes a file if it is there."""
    if not workers.may_write():
        return

    def work() -> None:
        with contextlib.suppress(tf.errors.NotFoundError):
            tf.io.gfile.remove(path)

    patiently(work, path)


def remove_tree(path: str) -> None:
    """Removes a folder with all that is in it."""
    if workers.may_write():
        patiently(lambda: tf.io.gfile.rmtree(path), path)


def rename(path: str, new: str) -> None:
    """Renames a file, in the place of one that may be there."""
    if workers.may_write():
        patiently(lambda: tf.io.gfile.rename(path, new, overwrite=True), path)


def size(path: str) -> int:
    """Returns the size of a file, bytes."""
    return patiently(lambda: tf.io.gfile.stat(path).length, path)


def read_bytes(path: str) -> bytes:
    """Returns the content of a file."""

    def work() -> bytes:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()

    return patiently(work, path)


def read_text(path: str) -> str:
    """Returns the content of a file, which is UTF-8."""
    return read_bytes(path).decode("utf-8")


def write_atomically(path: str, content: str | bytes) -> None:
    """Writes `content` beside `path`, then renames it into place.

    A reader, or a run that is killed, sees the old file or the new one, never a part.

    Raises:
        RunError: it could not be written; a file that was there is as it was.
    """
    if not workers.may_write():
        return
    part = f"{path}.{uuid.uuid4().hex[:8]}.part"
    encoded = content.encode("utf-8") if isinstance(content, str) else content

    def work() -> None:
        with tf.io.gfile.GFile(part, "wb") as file:
            file.write(encoded)
        tf.io.gfile.rename(part, path, overwrite=True)

    try:
        patiently(work, path)
    except BaseException as error:
        with contextlib.suppress(tf.errors.OpError, OSError):
            tf.io.gfile.remove(part)
        if isinstance(error, (tf.errors.OpError, OSError)):
            raise RunError(f"{path}: cannot be written ({first_line(error)})") from error
        raise


def join(directory: str, *names: str) -> str:
    """`os.path.join`, which serves for `gs://` just as well."""
    return os.path.join(directory, *names)


@functools.cache
def without_pattern(directory: str) -> str:
    """Returns a path of the same folder that TensorFlow does not take for a pattern.

    It reads a checkpoint in `runs/a[1]` as one in `runs/a1`, which is not there.

    Args:
        directory: a folder, which is made if it is not there.

    Raises:
        RequestError: it is on `gs://`, where a folder has one name only.
    """
    if not _PATTERN.search(directory):
        return directory
    if "://" in directory:
        raise RequestError(
            f"--run_dir: {directory}: TensorFlow takes the characters []*?{{}}\\ for a pattern; "
            "choose a name without them"
        )
    os.makedirs(directory, exist_ok=True)
    link = os.path.join(_links(), uuid.uuid4().hex)
    os.symlink(os.path.abspath(directory), link)
    return link


@functools.cache
def _links() -> str:
    """A folder for links, which goes with this process."""
    folder = tempfile.mkdtemp(prefix="flowers_tpu-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
