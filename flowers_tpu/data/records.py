"""The file format: TFRecord shards of JPEG photos, as the competition has them.

A data set is a folder with `train/`, `val/` and `test/`, each holding shards named
`NN-SIZExSIZE-COUNT.tfrec`. A record is a `tf.train.Example` with `image` (JPEG bytes), `id` (bytes)
and, where the split is labeled, `class` (int64).
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu import files, progress
from flowers_tpu.data import verify
from flowers_tpu.data.verify import Problem
from flowers_tpu.data.verify import parse as parse  # the other way of `serialize_example`
from flowers_tpu.errors import RequestError

SPLITS = ("train", "val", "test")
LABELED_SPLITS = ("train", "val")

_SHARD_NAME = re.compile(r"^(\d+)-(\d+)x(\d+)-(\d+)\.tfrec$")
_SIZE_FOLDER = re.compile(r"^tfrecords-jpeg-(\d+)x(\d+)/?$")
_SHARDS_READ_AT_ONCE = 8  # enough to hide the latency of a bucket


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file, with what its name says of it."""

    path: str
    image_size: int  # side of its square photos, pixels
    count: int  # records in use: all of them, but for those left out
    left_out: tuple[int, ...] = ()  # numbers of the others, from 0

    def in_use(self) -> list[bool]:
        """Whether each record is in use, up to the last one that is."""
        left_out = set(self.left_out)
        flags = [n not in left_out for n in range(self.count + len(left_out))]
        while flags and not flags[-1]:
            flags.pop()
        return flags


@dataclasses.dataclass(frozen=True)
class Split:
    """A split whose every record was read once: what is known of it without its photos.

    Attributes:
        name: `train`, `val` or `test`.
        shards: its files, in name order.
        ids: `[examples]` str, in file order.
        labels: `[examples]` int32 in file order, or None where the split has no labels.
        problems: why records are left out; empty unless bad records are skipped.
        fingerprints: `[examples]` int64, of the bytes of their JPEGs; equal ones, equal photos.
        jpeg_sizes: `[examples]` int64, bytes.
    """

    name: str
    shards: tuple[Shard, ...]
    ids: np.ndarray
    labels: np.ndarray | None
    problems: tuple[Problem, ...] = ()
    fingerprints: np.ndarray | None = None  # None only where nothing was read
    jpeg_sizes: np.ndarray | None = None

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.ids)

    @property
    def photo_size(self) -> int:
        """Side of the photos, pixels."""
        return self.shards[0].image_size

    @property
    def left_out(self) -> int:
        """The number of records that are no examples, as they cannot be used."""
        return sum(len(shard.left_out) for shard in self.shards)


def serialize_example(example_id: str, jpeg: bytes, label: int | None) -> bytes:
    """Returns one serialized record; `label` None leaves the feature out, as in the test split."""
    feature = {
        "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[example_id.encode()])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
    }
    if label is not None:
        feature["class"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(
        deterministic=True
    )


def write_shards(
    directory: str, serialized: Sequence[bytes], image_size: int, num_shards: int
) -> list[str]:
    """Writes records to shards of nearly equal size, in order; returns their paths.

    Each shard is written beside its place and then renamed, so that a name always tells the truth.
    """
    paths = []
    bounds = np.linspace(0, len(serialized), num_shards + 1).astype(int)
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        with shard_writer(directory, number, image_size) as write:
            for record in serialized[begin:end]:
                write(record)
        paths.append(_shard_path(directory, number, image_size, end - begin))
    return paths


@contextlib.contextmanager
def shard_writer(directory: str, number: int, image_size: int) -> Iterator[Callable[[bytes], None]]:
    """Gives what writes one record to a shard, which gets its name once all are written."""
    tf.io.gfile.makedirs(directory)
    part = files.join(directory, f"{number:02d}-{image_size}x{image_size}.part")
    count = 0

    def write(serialized: bytes) -> None:
        nonlocal count
        writer.write(serialized)
        count += 1

    with tf.io.TFRecordWriter(part) as writer:
        yield write
    tf.io.gfile.rename(part, _shard_path(directory, number, image_size, count), overwrite=True)


def data_folder(data_dir: str, image_size: int) -> str:
    """Returns the folder that holds `train/`: `data_dir` itself, or its folder for the image size.

    Where there is none of just that size, it is the one with the next larger photos.

    Raises:
        RequestError: there is no such folder, or all photos are smaller.
    """
    if not tf.io.gfile.isdir(data_dir):
        raise RequestError(f"--data_dir={data_dir}: no such folder")
    entries = tf.io.gfile.listdir(data_dir)
    found = filter(None, map(_SIZE_FOLDER.match, entries))
    sizes = sorted(int(m.group(1)) for m in found if m.group(1) == m.group(2))
    if not sizes:
        return data_dir
    large_enough = [size for size in sizes if size >= image_size]
    if not large_enough:
        raise RequestError(
            f"--image_size={image_size}: --data_dir={data_dir} holds photos of "
            f"{_enumerate(sizes)} pixels; use one of these sizes, or a smaller one"
        )
    size = large_enough[0]
    return files.join(data_dir, f"tfrecords-jpeg-{size}x{size}")


def find_shards(folder: str, split: str, image_size: int) -> tuple[Shard, ...]:
    """Returns the shards of a split, in name order; their photos may be larger than `image_size`.

    Raises:
        RequestError: the split's folder is missing or empty, a name is not a shard's, or photos
            are smaller than the image size, not square, or not all of one size.
    """
    directory = files.join(folder, split)
    if not tf.io.gfile.isdir(directory):
        raise RequestError(
            f"--data_dir: {directory}: no such folder; a data set has the folders "
            f"{_enumerate(SPLITS)} with shards named like 00-192x192-128.tfrec"
        )
    names = sorted(n for n in tf.io.gfile.listdir(directory) if n.endswith(".tfrec"))
    if not names:
        raise RequestError(f"--data_dir: {directory}: holds no .tfrec file")
    shards = []
    for name in names:
        match = _SHARD_NAME.match(name)
        path = files.join(directory, name)
        if not match:
            raise RequestError(
                f"{path}: not a shard's name; expected NUMBER-SIZExSIZE-COUNT.tfrec, "
                "like 00-192x192-128.tfrec"
            )
        height, width, count = (int(match.group(group)) for group in (2, 3, 4))
        if height != width or height < image_size:
            raise RequestError(
                f"{path}: holds photos of {height}x{width} pixels by its name, but "
                f"--image_size={image_size}: photos must be square and not smaller"
            )
        shards.append(Shard(path, height, count))
        if height != shards[0].image_size:
            raise RequestError(
                f"{path}: holds photos of {height}x{width} pixels by its name, but "
                f"{shards[0].path} of another size; those of a split must all have the same"
            )
    if not sum(shard.count for shard in shards):
        raise RequestError(f"--data_dir: {directory}: its shards hold no records")
    return tuple(shards)


def read_split(
    folder: str, split: str, image_size: int, num_classes: int, *, bad_records: str = "fail"
) -> Split:
    """Reads every record of a split once and checks it.

    Shards are read in parallel, TFRecord checksums included. With `fail`, only the headers of the
    photos are read: about 10,000 photos of 512 px per second and core from a local disk. With
    `skip` every photo is decoded, so that none that cannot be is met later.

    Args:
        folder: of the data set.
        split: its name.
        image_size: side of the photos that is wanted, pixels; they may be larger.
        num_classes: labels are below it.
        bad_records: `fail` or `skip`: what to do with records that cannot be used.

    Raises:
        RequestError: with `fail`, a shard is damaged or holds another number of records than its
            name says, or a record lacks a feature, has a label out of range or a photo of another
            size; the message names shard, record and id. With both, ids are not distinct, a file
            cannot be read, or no record can be used.
    """
    shards = find_shards(folder, split, image_size)
    contents = examine_shards(shards, split, num_classes, decode=bad_records == "skip")
    problems = tuple(problem for content in contents for problem in content.problems)
    if problems and bad_records == "fail":
        raise RequestError(
            f"{problems[0]} (problems in {split}: {len(problems)}; scripts/check_data.py lists "
            "them, --bad_records=skip leaves bad records out)"
        )
    shards = tuple(
        dataclasses.replace(shard, count=len(content.used), left_out=content.left_out)
        for shard, content in zip(shards, contents, strict=True)
    )
    used = [record for content in contents for record in content.used]
    if not used:
        raise RequestError(f"{problems[0]}; no record of {split} can be used")
    ids = np.array([record.id for record in used])
    _check_ids(ids, shards)
    labels = np.array([record.label for record in used], np.int32)
    return Split(
        split,
        shards,
        ids,
        labels if split in LABELED_SPLITS else None,
        problems,
        fingerprints=np.array([record.fingerprint for record in used], np.int64),
        jpeg_sizes=np.array([record.jpeg_size for record in used], np.int64),
    )


def examine_shards(
    shards: Sequence[Shard], split: str, num_classes: int, *, decode: bool
) -> list[verify.Contents]:
    """Examines shards in parallel; see `verify.examine`."""

    def examine(shard: Shard) -> verify.Contents:
        return verify.examine(
            shard.path,
            image_size=shard.image_size,
            count=shard.count,
            num_classes=num_classes if split in LABELED_SPLITS else None,
            decode=decode,
        )

    contents = []
    with (
        concurrent.futures.ThreadPoolExecutor(_SHARDS_READ_AT_ONCE) as pool,
        progress.bar(sum(shard.count for shard in shards), f"checking {split}") as bar,
    ):
        for shard, content in zip(shards, pool.map(examine, shards), strict=True):
            contents.append(content)
            bar.update(shard.count)
    return contents


def shard_reader(shards: Sequence[Shard]) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Returns what gives the serialized records in use of the shard of a number, in file order."""
    paths = tf.constant([shard.path for shard in shards])

    def read(number: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(tf.gather(paths, number), None, verify.READ_BUFFER)

    if not any(shard.left_out for shard in shards):
        return read
    # Nothing behind the last record in use is read: the file may be damaged there.
    in_use = tf.ragged.constant([shard.in_use() for shard in shards], tf.bool, ragged_rank=1)

    def read_used(number: tf.Tensor) -> tf.data.Dataset:
        used = in_use[number]
        numbered = read(number).take(tf.size(used, tf.int64)).enumerate()
        return numbered.filter(lambda n, _: used[n]).map(lambda _, serialized: serialized)

    return read_used


def _shard_path(directory: str, number: int, image_size: int, count: int) -> str:
    return files.join(directory, f"{number:02d}-{image_size}x{image_size}-{count}.tfrec")


def _check_ids(ids: np.ndarray, shards: Sequence[Shard]) -> None:
    """Ids are how a prediction is told from another, so each must be there once."""
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    repeated = first[counts > 1]
    if len(repeated):
        example_id = ids[repeated[0]]
        ends = np.cumsum([shard.count for shard in shards])
        places = np.flatnonzero(ids == example_id)[:2]
        where = " and ".join(shards[np.searchsorted(ends, p, side="right")].path for p in places)
        raise RequestError(
            f"id {example_id} stands in more than one record ({where}); ids must be distinct "
            f"({len(repeated)} ids are not)"
        )


def _enumerate(items: Sequence[object]) -> str:
    *rest, last = (str(item) for item in items)
    return f"{', '.join(rest)} and {last}" if rest else last
