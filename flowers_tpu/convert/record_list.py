"""Which photos there are in TFRecords as others write them: their classes, splits and ids."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from flowers_tpu.convert import features, photo_files
from flowers_tpu.convert.features import Names
from flowers_tpu.convert.options import ConvertOptions
from flowers_tpu.convert.photo_list import SPLIT_NAMES, Listing, Photo, with_ids
from flowers_tpu.data import classes, records, shard_bytes, verify
from flowers_tpu.system import files, terminal
from flowers_tpu.system.errors import RequestError, first_line

_SHARD = re.compile(r"\.tfrec(ord)?s?\b|-\d{5}-of-\d{5}$", re.IGNORECASE)
_SIZE_FOLDER = re.compile(r"^tfrecords-jpeg-(\d+)x\1$")


class _Record(NamedTuple):
    """A record whose photo was unpacked."""

    photo: Photo  # with its number, or its text, as the label
    number: int | None  # its label, if that is a number
    text: str  # the name of its class, if a feature says it


def list_records(options: ConvertOptions, into: str) -> Listing:
    """Lists the photos of a folder of TFRecords, and unpacks them.

    Shards are known by their bytes, whatever their names; they may be compressed. Splits are told
    by the folders they are in, else by words in their names (`flowers-train.tfrecord-00000-of-2`);
    without any of validation the photos of training are still to be divided.

    Args:
        options: with the folder, and the names of the features; '' for the usual ones.
        into: folder for the photos, which is made.

    Raises:
        RequestError: there are no shards, one is damaged or of no known kind, or its records have
            not the features that are asked for; the message names shard, record and features.
    """
    folder = _photos_folder(options.from_tfrecords)
    shards = _shards(folder)
    os.makedirs(into)
    found: list[_Record] = []
    with terminal.bar(len(shards), "unpacking shards") as bar:
        for path, compression in shards:
            found += _unpack(folder, path, compression, options, into, len(found))
            bar.update()
    class_names = _class_names(options, folder, found)
    photos = _named(found, class_names)
    if all(photo.split != "val" for photo in photos):
        photos = [p._replace(split=None) if p.split == "train" else p for p in photos]
    return Listing(with_ids(photos), [], [], class_names or ())


def _photos_folder(folder: str) -> str:
    """The folder itself, or that of the largest photos among the competition's folders."""
    if not os.path.isdir(folder):
        raise RequestError(f"--from_tfrecords={folder}: no such folder")
    sizes = [int(m.group(1)) for m in map(_SIZE_FOLDER.match, os.listdir(folder)) if m]
    return os.path.join(folder, "tfrecords-jpeg-{0}x{0}".format(max(sizes))) if sizes else folder


def _shards(folder: str) -> list[tuple[str, str]]:
    """The shards in a folder, by name, and how each is compressed."""
    found = []
    for path in sorted(photo_files.files_below(folder)):
        head = shard_bytes.read_head(path)
        compression = shard_bytes.compression_of(head) if head else None
        if compression is not None:
            found.append((path, compression))
        elif _SHARD.search(path) and head:
            what = shard_bytes.stranger(head) or "holds no TFRecords, or its first is damaged"
            raise RequestError(f"--from_tfrecords: {path}: {what}")
    if not found:
        raise RequestError(
            f"--from_tfrecords={folder}: no file in it holds TFRecords; photos go by --photos"
        )
    return found


def _unpack(
    folder: str, path: str, compression: str, options: ConvertOptions, into: str, begin: int
) -> Iterator[_Record]:
    """Yields the records of a shard, whose photos go to files numbered from `begin`."""
    name = os.path.relpath(path, folder)
    split, names = _split_of(name), None
    for number, example in enumerate(_examples(path, compression)):
        where = f"--from_tfrecords: {path}, record {number} (counted from 0)"
        if names is None or not names.fit(example):
            names = Names.choose(example, options, where, needs_label=split != "test")
        image = features.bytes_of(example, names.image, where)
        unpacked = os.path.join(into, f"{begin + number:08d}")
        with open(unpacked, "wb") as file:
            file.write(image)
        label = features.label_of(example, names.label, where)
        text = features.text_of(example, names.text)
        given = features.id_of(example, names.id)
        # Zeros, so that the photos stand in their order.
        photo = Photo(unpacked, f"{name}/{number:06d}", None, split, given)
        if isinstance(label, str):
            yield _Record(photo, None, label)
        else:
            yield _Record(photo, label, text)


def _examples(path: str, compression: str) -> Iterator[tf.train.Example]:
    try:
        whole, torn = (1 << 62, "") if compression else verify.count_whole(path)
        dataset = tf.data.TFRecordDataset(path, compression, records.READ_BUFFER).take(whole)
        for number, serialized in enumerate(dataset.as_numpy_iterator()):
            try:
                yield tf.train.Example.FromString(serialized)
            except Exception as error:  # protobuf's own kind, which differs between versions
                raise RequestError(
                    f"--from_tfrecords: {path}, record {number}: no tf.train.Example"
                ) from error
    except tf.errors.OpError as error:
        raise RequestError(f"--from_tfrecords: {path}: damaged ({first_line(error)})") from error
    if torn:
        raise RequestError(f"--from_tfrecords: {path}: {torn}")


def _split_of(name: str) -> str | None:
    """The split that the path of a shard names: by its folders, else by a word in its name."""
    *folders, file = name.split(os.sep)
    for word in (*folders, *re.split(r"[^a-z]+", file.casefold())):
        if word.casefold() in SPLIT_NAMES:
            return SPLIT_NAMES[word.casefold()]
    return None


def _class_names(
    options: ConvertOptions, folder: str, found: Sequence[_Record]
) -> tuple[str, ...] | None:
    """The names of the classes by label, from a file or from the records; None: numbers are all.

    Raises:
        RequestError: the names in the records contradict the numbers.
    """
    if options.classes:
        return classes.read_classes(options.classes)
    for place in (folder, options.from_tfrecords):  # the second: above a folder of one size
        for file in sorted(os.listdir(place)):
            if file in ("classes.txt", "labels.txt") or file.endswith(".labels.txt"):
                return _read_names(os.path.join(place, file))
    texts: dict[int, str] = {}
    for record in found:
        if record.number is not None and record.text:
            known = texts.setdefault(record.number, record.text)
            if known != record.text:
                raise RequestError(
                    f"--from_tfrecords: label {record.number} is {known!r} in one record and "
                    f"{record.text!r} in {record.photo.name}; give one of them by --label_feature"
                )
    if texts:
        return tuple(name for _, name in sorted(texts.items()))
    numbers = {r.number for r in found if r.number is not None and r.photo.split != "test"}
    if numbers and (min(numbers), max(numbers)) == (0, len(classes.FLOWERS) - 1):
        terminal.note(f"{folder}: has no classes.txt; the names are the competition's")
        return classes.FLOWERS
    return None


def _read_names(path: str) -> tuple[str, ...]:
    """Reads class names, one a line; a number and a colon before each is taken off."""
    lines = [line.strip() for line in files.read_text(path).splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d+):(.+)", line) for line in lines]
    if lines and all(numbered):
        by_number = sorted((int(m[1]), m[2].strip()) for m in numbered if m)
        return tuple(name for _, name in by_number)
    return classes.read_classes(path)


def _named(found: Sequence[_Record], class_names: tuple[str, ...] | None) -> list[Photo]:
    """The photos with the names of their classes; numbers from 1 are taken for those from 0."""
    numbers = {r.number for r in found if r.number is not None}
    by_text = {r.number for r in found if r.number is not None and r.text}
    from_one = class_names is not None and (
        (min(numbers, default=0), max(numbers, default=0)) == (1, len(class_names))
    )
    if class_names and from_one and not by_text:
        terminal.note(f"The labels go from 1 to {len(class_names)}: label 1 is {class_names[0]!r}.")
    photos = []
    for photo, number, text in found:
        name = text or None
        if number is not None and number >= 0 and not text:
            label = number - from_one
            if class_names is not None and not 0 <= label < len(class_names):
                raise RequestError(
                    f"--from_tfrecords: {photo.name}: label {number}, but there are "
                    f"{len(class_names)} names of classes; check --classes"
                )
            name = class_names[label] if class_names is not None else str(number)
        photos.append(photo._replace(label=name, split=photo.split or (None if name else "test")))
    if unlabeled := [p for p in photos if p.label is None and p.split != "test"]:
        logging.warning(
            "%d records for training have no label, and become test photos (such as %s)",
            *(len(unlabeled), unlabeled[0].name),
        )
    return [p if p.label or p.split == "test" else p._replace(split="test") for p in photos]
