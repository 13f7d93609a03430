"""Folders that are there whole or not at all, and replaced only by what made them."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from flowers_tpu.system import folders
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.folders import LOCK, Owner


@contextlib.contextmanager
def published(
    path: str, flag: str, owner: Owner, *, overwrite: bool = False, wait: bool = False
) -> Iterator[str]:
    """Gives a folder to write to, which is renamed to `path` if all goes well.

    That is `path.part`. A process that is killed leaves it, and the next one that writes to `path`
    clears it. While an earlier folder is replaced, that is `path.replaced` until the new one is in
    its place.

    Args:
        path: a local folder that is not there, or is empty.
        flag: that gives it, for messages.
        owner: what makes it; `mark` has to be called before the end.
        overwrite: it may be an earlier one of the same owner too.
        wait: for another process that makes the same folder, instead of refusing.

    Raises:
        RequestError: the folder holds something else, is a volume of its own, or another process
            writes to it.
    """
    shown, path = f"--{flag}={path}", os.path.realpath(path)
    part, replaced = f"{path}.part", f"{path}.replaced"
    if os.path.ismount(path):
        raise RequestError(
            f"{shown}: is a volume of its own, which nothing can be renamed to; choose a "
            "folder in it"
        )
    _check_replaceable(path, shown, owner, overwrite)
    _check_replaceable(replaced, f"--{flag}={replaced}", owner, overwrite=True)
    _check_unfinished(part, owner)
    with folders.locked(part, flag, wait=wait):
        _clear(part)
        try:
            # Another process may have been faster, or files may have come meanwhile.
            _check_replaceable(path, shown, owner, overwrite)
            yield part
            _check_replaceable(path, shown, owner, overwrite)
            if os.path.isdir(path) and os.listdir(path):
                _remove(replaced, owner)
                os.rename(path, replaced)
            os.rename(part, path)
            os.remove(os.path.join(path, LOCK))
            _remove(replaced, owner)
        except BaseException:
            if folders.belongs_to(replaced, owner) and not os.path.exists(path):
                os.rename(replaced, path)
            if os.path.isdir(part):
                _clear(part)
            raise


def mark(folder: str, owner: Owner, content: dict[str, Any]) -> None:
    """Marks a folder as complete, with what is to be known of it and the names of its files."""
    with open(os.path.join(folder, owner.marker), "w", encoding="utf-8") as file:
        json.dump({**content, "files": _files(folder, owner)}, file, indent=2)
        file.write("\n")


def _files(folder: str, owner: Owner) -> list[str]:
    """Returns the paths of all files within a folder, but of the marker and the lock."""
    paths = (
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    )
    return sorted(path for path in paths if path not in (owner.marker, LOCK))


def _clear(folder: str) -> None:
    """Removes everything but the lock."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != LOCK:
            os.remove(entry.path)


def _remove(folder: str, owner: Owner) -> None:
    """Removes what an owner made, its marker last: if this is killed, it goes on the next time."""
    if not folders.belongs_to(folder, owner):
        return
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != owner.marker:
            os.remove(entry.path)
    shutil.rmtree(folder)


def _check_unfinished(part: str, owner: Owner) -> None:
    there = os.listdir(part) if os.path.exists(part) else []
    if there and LOCK not in there and owner.marker not in there:
        raise RequestError(
            f"{part}: is needed for unfinished work, but holds other files; move it away"
        )


def _check_replaceable(path: str, shown: str, owner: Owner, overwrite: bool) -> None:
    """Refuses to touch what is there, unless it is an earlier one and nothing else."""
    if not os.path.exists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not overwrite:
        raise RequestError(
            f"{shown}: already exists; choose another folder, or give --overwrite to "
            f"replace an earlier {owner.what}"
        )
    if not folders.belongs_to(path, owner):
        raise RequestError(
            f"{shown}: is no {owner.what} (it has no {owner.marker}), so --overwrite does "
            "not touch it; choose another folder"
        )
    try:
        with open(os.path.join(path, owner.marker), encoding="utf-8") as file:
            written = set(json.load(file)["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{shown}: its {owner.marker} cannot be read, so --overwrite does not touch "
            "it; choose another folder"
        ) from error
    if others := [name for name in _files(path, owner) if name not in written]:
        raise RequestError(
            f"{shown}: also holds {len(others)} files that are no part of it (such as "
            f"{others[0]}), so --overwrite does not touch it; move them elsewhere"
        )
