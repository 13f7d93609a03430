"""The folder of a conversion: there whole or not at all, and replaced only where it is its own."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from flowers_tpu.errors import RequestError

# Written last. It lists all files of a conversion: a folder with any other is not only one.
MARKER = "conversion.json"
_LOCK = "conversion.lock"


@contextlib.contextmanager
def written_whole(path: str, *, overwrite: bool) -> Iterator[str]:
    """Gives a folder to write to, which is renamed to `path` if all goes well.

    That is `path.part`. A process that is killed leaves it, and the next one that writes to `path`
    clears it. Where an earlier conversion is replaced, it is `path.replaced` until the new one is
    in its place.

    Args:
        path: a local folder that is not there, or is empty.
        overwrite: it may be an earlier conversion too.

    Raises:
        RequestError: the folder holds something else, is a volume of its own, or another process
            writes to it.
    """
    path = os.path.realpath(path)
    part, replaced = f"{path}.part", f"{path}.replaced"
    if os.path.ismount(path):
        raise RequestError(
            f"--output_dir={path}: is a volume of its own, which nothing can be renamed to; choose "
            "a folder in it"
        )
    _check_replaceable(path, overwrite)
    _check_replaceable(replaced, overwrite=True)
    with _locked(part):
        try:
            yield part
            _check_replaceable(path, overwrite)  # files may have come meanwhile
            if os.path.isdir(path) and os.listdir(path):
                _remove_conversion(replaced)
                os.rename(path, replaced)
            os.rename(part, path)
            os.remove(os.path.join(path, _LOCK))
            _remove_conversion(replaced)
        except BaseException:
            if _is_conversion(replaced) and not os.path.exists(path):
                os.rename(replaced, path)
            shutil.rmtree(part, ignore_errors=True)
            raise


def mark(folder: str, content: dict[str, Any]) -> None:
    """Marks a folder as a conversion that is complete, with what is to be known of it."""
    with open(os.path.join(folder, MARKER), "w", encoding="utf-8") as file:
        json.dump({**content, "files": _files(folder)}, file, indent=2)
        file.write("\n")


def _files(folder: str) -> list[str]:
    """Returns the paths of all files within a folder, but of the marker and the lock."""
    paths = (
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    )
    return sorted(path for path in paths if path not in (MARKER, _LOCK))


def _is_conversion(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, MARKER))


def _remove_conversion(folder: str) -> None:
    """Removes a conversion, its marker last: if this is killed, it goes on the next time."""
    if not _is_conversion(folder):
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != MARKER:
            os.remove(entry.path)
    shutil.rmtree(folder)


def _check_replaceable(path: str, overwrite: bool) -> None:
    """Refuses to touch what is there, unless it is an earlier conversion and nothing else."""
    if not os.path.exists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not overwrite:
        raise RequestError(
            f"--output_dir={path}: already exists; choose another folder, or give --overwrite to "
            "replace an earlier conversion"
        )
    if not _is_conversion(path):
        raise RequestError(
            f"--output_dir={path}: is no data set of this script (it has no {MARKER}), so "
            "--overwrite does not touch it; choose another folder"
        )
    try:
        with open(os.path.join(path, MARKER), encoding="utf-8") as file:
            written = set(json.load(file)["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"--output_dir={path}: its {MARKER} cannot be read, so --overwrite does not touch it; "
            "choose another folder"
        ) from error
    if others := [name for name in _files(path) if name not in written]:
        raise RequestError(
            f"--output_dir={path}: also holds {len(others)} files that are no part of the data set "
            f"(such as {others[0]}), so --overwrite does not touch it; move them elsewhere"
        )


@contextlib.contextmanager
def _locked(part: str) -> Iterator[None]:
    """Makes an empty folder that is this process' alone; the lock goes with the process."""
    there = os.listdir(part) if os.path.exists(part) else []
    if there and _LOCK not in there and MARKER not in there:
        raise RequestError(
            f"{part}: is needed for unfinished work, but holds other files; move it away"
        )
    os.makedirs(part, exist_ok=True)
    with open(os.path.join(part, _LOCK), "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(
                f"{part}: another conversion is writing there; wait for it, or choose another "
                "--output_dir"
            ) from error
        for entry in os.scandir(part):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != _LOCK:
                os.remove(entry.path)
        yield
