"""Which files in a folder are photos: by their names and, where these say little, first bytes."""

import os
from collections.abc import Iterator

from flowers_tpu.convert import first_bytes
from flowers_tpu.convert.photo_pixels import file_endings
from flowers_tpu.system.errors import RequestError

NO_PHOTO = "no photo by its name's ending"
_COPY = "a copy or a preview that a program keeps beside a photo"

# Folders that systems make in a folder of photos: of thumbnails, of what was deleted, of notes.
_OF_SYSTEMS = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "__macosx"),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
        *("lost.dir", "network trash folder", "temporary items", "thumbnails.noindex"),
    )
)
# What programs add to the names of the photos of which they keep an earlier state or a preview.
_COPIES = (".thm", "~", "_original", ".bak", ".orig", ".tmp")


def is_left_out(folder: str) -> bool:
    """Whether a folder is hidden, or a system's own, by its name."""
    return folder.startswith(".") or folder.casefold() in _OF_SYSTEMS


def no_photo(path: str) -> str:
    """Returns why a file is none of the photos, in words; '' if it is one.

    It is one if its name ends as those of pictures do, or if its first bytes are a picture's. Not
    every photo can be read.
    """
    name = os.path.basename(path).lower()
    ending = os.path.splitext(name)[1]
    if ending in file_endings():
        return ""
    if name.endswith(_COPIES):
        return _COPY
    if ending in first_bytes.PICTURE_ENDINGS:
        return ""
    kind = first_bytes.read_kind(path)
    if kind is None:
        return NO_PHOTO
    return "" if kind.is_picture else kind.name


def files_below(folder: str) -> Iterator[str]:
    """Yields the paths of all files below a folder but those that are hidden, or a system's.

    Links are followed, but not to where they are or above.

    Raises:
        RequestError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(error) from error

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = os.path.join(os.path.realpath(parent), "")
        folders[:] = [
            name
            for name in folders
            if not is_left_out(name)
            # A link to where we are, or above, would never end.
            and not here.startswith(os.path.join(os.path.realpath(os.path.join(parent, name)), ""))
        ]
        yield from (os.path.join(parent, name) for name in names if not name.startswith("."))


def folders_in(folder: str) -> list[str]:
    """Returns the names of the folders in a folder but those that are hidden, or a system's.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not is_left_out(e.name))
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> RequestError:
    """Returns what to raise at a folder that cannot be read."""
    return RequestError(f"--photos: {error.filename}: cannot be read ({error.strerror})")
