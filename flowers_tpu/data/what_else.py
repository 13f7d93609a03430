"""What a folder holds that was given as a data set and is none, and what to do with it."""

import os
import re

from flowers_tpu.data.records import SPLITS
from flowers_tpu.system import files

_PHOTO = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|heic|avif)$", re.IGNORECASE)
_SHARD = re.compile(r"\.tfrec(ord)?s?\b|-\d{5}-of-\d{5}$|^\d+-\d+x\d+-\d+\.tfrec", re.IGNORECASE)
_OWN_SHARD = re.compile(r"^\d+-\d+x\d+-\d+\.tfrec$")
_SIZE_FOLDER = re.compile(r"^tfrecords-jpeg-\d+x\d+$")
# The data sets that flagfiles name, by their folders.
_HOW_TO_GET = {
    "oxford102": "; scripts/make_tfrecords.py --oxford102=FOLDER --sizes=192 --output_dir={path} "
    "makes it of what is published (docs/data.md says what goes into FOLDER)",
    "tpu-getting-started": "; it is the competition's (docs/data.md says where from)",
}
_MOST_FOLDERS = 20  # that are looked into


def advice(folder: str) -> str:
    """Returns what a folder holds in place of a data set, and what to do; '' if that is not known.

    A data set one level off, shards under other names, a folder of photos, or an archive.
    """
    above, name = os.path.split(folder.rstrip("/"))
    if name in SPLITS and {*SPLITS} <= set(_names(above or os.curdir)):
        return f". Did you mean --data_dir={above or os.curdir}?"
    names = _names(folder)
    folders = [n for n in names if not os.path.splitext(n)[1]][:_MOST_FOLDERS]
    inner = {name: _names(files.join(folder, name)) for name in folders}
    for name, below in inner.items():
        if any(map(_SIZE_FOLDER.match, below)) or {*SPLITS} <= set(below):
            return f". Did you mean --data_dir={files.join(folder, name)}?"
    everything = [(name, name) for name in names]
    everything += [(f"{name}/{one}", one) for name, below in inner.items() for one in below]
    if other := [
        shown for shown, name in everything if _SHARD.search(name) and not _OWN_SHARD.match(name)
    ]:
        return (
            f". It holds shards under other names, such as {other[0]}: "
            f"scripts/make_tfrecords.py --from_tfrecords={folder} makes a data set of them"
        )
    if photos := [shown for shown, name in everything if _PHOTO.search(name)]:
        return (
            f". It holds photos, such as {photos[0]}: scripts/make_tfrecords.py "
            f"--photos={folder} --output_dir=DATA makes a data set of them"
        )
    if archives := [name for name in names if _is_archive(name)]:
        return f". It holds {archives[0]}: unpack it"
    return ""


def missing(path: str) -> str:
    """Returns what to say of a folder that is not there, in words."""
    if files.exists(path):
        hint = ": unpack it and give the folder" if _is_archive(path) else ""
        return f"is a file, no folder{hint}"
    shown = "no such folder"
    if "://" not in path and not os.path.isabs(path):
        shown += f" (a path from {os.getcwd()})"
    return shown + _HOW_TO_GET.get(os.path.basename(path.rstrip("/")), "").format(path=path)


def _is_archive(name: str) -> bool:
    return name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".7z", ".rar"))


def _names(folder: str) -> list[str]:
    return files.list_dir(folder) if files.is_dir(folder) else []
