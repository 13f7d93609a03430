"""Which photos there are in a folder: their classes, splits and ids."""

import collections
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flowers_tpu.convert import first_bytes, photo_files
from flowers_tpu.system.errors import RequestError

# What people call the splits, in any case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
# What looks like one of them with something added: train_set, 1_val, TestImages, flowers-train.
_LIKE_A_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(sets?|s|data|images)?(?![a-z])")


class Photo(NamedTuple):
    """A photo's file, and what is known of it without opening it."""

    path: str  # of the file
    name: str  # its path within the folder of all photos
    label: str | None  # its class; None where that is not known
    split: str | None  # where it was put; None: still to be chosen
    id: str  # given, or a function of `name`, but for namesakes


class Listing(NamedTuple):
    """All photos, by name.

    Attributes:
        photos: with distinct names and ids.
        ignored: paths within the folder of the files that are no photos, and why, in words.
        empty: folders of classes without any photo.
        class_names: by label, if something but the photos says them.
    """

    photos: list[Photo]
    ignored: list[tuple[str, str]]
    empty: list[str]
    class_names: tuple[str, ...] = ()


def list_folder(folder: str) -> Listing:
    """Lists a folder of photos, with folders in it in one of two ways.

    A folder per class, and beside them possibly `test/` with photos of no known class. Or `train/`,
    `val/` and `test/`, by any of `SPLIT_NAMES`: the first two with a folder per class, `test/` with
    or without; without `val/`, the photos of `train/` are still to be divided. Deeper folders
    belong to the class they are in, in which a file without an ending may be a photo too. Links are
    followed; what is hidden (its name begins with a dot), or a folder of the system's, is left out.
    The name of a test photo of no known class is its id, as in a competition.

    Raises:
        RequestError: it cannot be read, mixes the two ways, has labeled photos in no class, or the
            folders of the classes are one level below.
    """
    if not os.path.isdir(folder):
        raise RequestError(f"--photos={folder}: {_no_folder(folder)}")
    is_split = _is_split(folder)
    photos, loose, ignored = [], [], []
    for path in photo_files.files_below(folder):
        name = os.path.relpath(path, folder)
        *folders, file = name.split(os.sep)
        may_be_one = folders and not os.path.splitext(file)[1]
        if not may_be_one and (why := photo_files.no_photo(path)):
            ignored.append((name, why))
            continue
        split = SPLIT_NAMES.get(folders[0].casefold()) if folders else None
        split = split if is_split or split == "test" else None
        if split:
            folders.pop(0)
        label = folders[0].strip() if folders else None
        if label is None and split != "test":
            loose.append(name)
        photos.append(Photo(path, name, label, split, ""))
    if not photos:
        raise RequestError(f"--photos={folder}: {_no_photos(folder, ignored)}")
    if loose:
        raise RequestError(
            f"--photos={folder}: {len(loose)} photos are in no folder of a class (such as "
            f"{loose[0]}); move each into the folder of its class"
        )
    known = {photo.label for photo in photos if photo.split != "test"}
    # A folder within test/ that is no class, such as test/all/, says nothing of its photos.
    photos = [p if p.label in known else p._replace(label=None) for p in photos]
    photos = [p if p.label else p._replace(id=_stem(p.name)) for p in photos]
    if is_split and all(photo.split != "val" for photo in photos):
        photos = [p._replace(split=None) if p.split == "train" else p for p in photos]
    _check_level(folder, photos)
    used = {os.path.join(*p.name.split(os.sep)[: 2 if is_split else 1]) for p in photos}
    empty = [name for name in _class_folders(folder, is_split) if name not in used]
    return Listing(with_ids(photos), sorted(ignored), empty)


def class_names(photos: Iterable[Photo], wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the names of the classes, by label: those wanted, else all there are, sorted.

    Names that are all whole numbers are sorted as numbers.

    Raises:
        RequestError: there are none, one is not wanted, or one cannot be a line of a file.
    """
    found = {photo.label: photo for photo in reversed(list(photos)) if photo.label is not None}
    if not found:
        raise RequestError("no photo has a class: expected a folder per class, or labels")
    for name, photo in found.items():
        if not name.isprintable():
            raise RequestError(f"{photo.path}: its class {name!r} is no name; rename it")
        if wanted and name not in wanted:
            close = difflib.get_close_matches(name, wanted, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RequestError(f"--classes: has no {name!r}{hint}, the class of {photo.path}")
    if wanted:
        return tuple(wanted)
    as_numbers = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if as_numbers else 0, name)))


def find_identical(photos: Sequence[Photo], advance=lambda: None) -> dict[str, str]:
    """Returns for each photo that is byte for byte an earlier one the name of the first of them.

    Only files of equal size are read. What cannot be read is like no other.

    Args:
        photos: all, by name.
        advance: called for each photo, for a progress bar.
    """
    by_size = collections.defaultdict(list)
    for photo in photos:
        by_size[_size(photo.path)].append(photo)
    first: dict[bytes, str] = {}
    same_as = {}
    for size, photos_of_size in by_size.items():
        for photo in photos_of_size:
            advance()
            if size is None or len(photos_of_size) == 1:
                continue
            digest = _digest(photo.path)
            if digest is not None and first.setdefault(digest, photo.name) != photo.name:
                same_as[photo.name] = first[digest]
    return same_as


def ids_of(names: Sequence[str]) -> list[str]:
    """Returns an id for every name: the name without ending, made of letters, digits and `_.-`.

    Where that makes two the same (`a.jpg` and `a.png`), each of them ends in digits that its whole
    name alone decides.
    """
    ids = [re.sub(r"[^\w.-]", "_", os.path.splitext(n)[0].replace(os.sep, "-")) for n in names]
    counts = collections.Counter(ids)
    digits = 8
    while len(set(ids)) < len(ids) and digits <= 64:
        ids = [
            f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:digits]}"
            if counts[plain] > 1
            else plain
            for plain, name in zip(ids, names, strict=True)
        ]
        counts, digits = collections.Counter(ids), digits * 2
    return ids


def with_ids(photos: list[Photo]) -> list[Photo]:
    """Returns photos by name, with distinct ids: those given, else made of their names.

    A given one that is not the only one, or is what another's name makes, is made of the name too.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    made = ids_of([photo.name for photo in photos])
    counts = collections.Counter([photo.id for photo in photos if photo.id])
    taken = collections.Counter(made)
    return [
        photo
        if counts[photo.id] == 1 and photo.id.isprintable() and taken[photo.id] == (photo.id == own)
        else photo._replace(id=own)
        for photo, own in zip(photos, made, strict=True)
    ]


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def _no_folder(path: str) -> str:
    """What a path is that is no folder, in words."""
    if not os.path.lexists(path):
        above = "" if os.path.isabs(path) else f" (a path from {os.getcwd()})"
        return f"no such folder{above}"
    kind = first_bytes.read_kind(path)
    if kind and kind.advice == "unpack it":
        return f"is {kind.name}; unpack it and give the folder"
    if path.lower().endswith(".csv"):
        return f"is a file; --csv={path} takes a list of photos"
    return "is a file; expected a folder with a folder of photos per class"


def _no_photos(folder: str, ignored: Sequence[tuple[str, str]]) -> str:
    """What a folder without photos holds, in words."""
    if not ignored:
        return "holds no files; expected a folder of photos per class"
    name, why = sorted(ignored)[0]
    if shards := [name for name, _ in ignored if ".tfrec" in name]:
        return (
            f"holds no photos, but {shards[0]}: --from_tfrecords={folder} takes TFRecords of others"
        )
    return f"holds no photos, but {len(ignored)} other files (such as {name}: {why})"


def _is_split(folder: str) -> bool:
    """Whether a folder holds train/, val/ and test/ rather than classes."""
    names = photo_files.folders_in(folder)
    named = [name for name in names if name.casefold() in SPLIT_NAMES]
    splits = [SPLIT_NAMES[name.casefold()] for name in named]
    classes = [name for name in names if name not in named]
    if repeated := [name for name, split in zip(named, splits, strict=True)
                    if splits.count(split) > 1]:  # fmt: skip
        raise RequestError(
            f"--photos={folder}: {' and '.join(repeated)} name one and the same split; put their "
            "photos into one of them"
        )
    if {"train", "val"} & set(splits) and (classes or "train" not in splits):
        raise RequestError(
            f"--photos={folder}: holds {', '.join(named)}"
            f"{f' and also {classes[0]}' if classes else ' but no train'}; expected either a "
            "folder per class or train, val and test with a folder per class in each"
        )
    # One such name may be a class (a toy train), and so may several (freight_train, night-train);
    # where all are, and of different splits, the classes are one level below.
    like = [match[1] for name in names if (match := _LIKE_A_SPLIT.search(name.casefold()))]
    meant = {SPLIT_NAMES[name] for name in like}
    if "train" not in splits and len(like) == len(names) and "train" in meant and len(meant) > 1:
        raise RequestError(
            f"--photos={folder}: {', '.join(names)} look like splits, not classes; rename them to "
            "train, val and test"
        )
    return "train" in splits


def _check_level(folder: str, photos: Sequence[Photo]) -> None:
    """Refuses a folder whose only class is a folder of folders: the classes are meant."""
    labels = {photo.label for photo in photos if photo.label is not None}
    if len(labels) != 1:
        return
    (label,) = labels
    parents = {os.path.dirname(photo.name) for photo in photos if photo.label == label}
    tops = {os.path.join(*p.split(os.sep)[: p.split(os.sep).index(label) + 1]) for p in parents}
    if len(parents) > len(tops) and not parents & tops:
        inner = sorted(parents)[0]
        raise RequestError(
            f"--photos={folder}: the only class would be {label!r}, but it holds folders itself "
            f"(such as {inner}); did you mean --photos={os.path.join(folder, min(tops))}?"
        )


def _class_folders(folder: str, is_split: bool) -> list[str]:
    if not is_split:
        return photo_files.folders_in(folder)
    return [
        os.path.join(split, name)
        for split in photo_files.folders_in(folder)
        for name in photo_files.folders_in(os.path.join(folder, split))
    ]


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _digest(path: str) -> bytes | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()
