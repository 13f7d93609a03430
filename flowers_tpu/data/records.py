"""The file format: TFRecord shards of JPEG photos, as the competition has them.

A data set is a folder with `train/`, `val/` and `test/`, each holding shards named
`NN-SIZExSIZE-COUNT.tfrec`. A record is a `tf.train.Example` with `image` (JPEG bytes), `id` (bytes)
and, where the split is labeled, `class` (int64).
"""

import concurrent.futures
import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu import files
from flowers_tpu.errors import RequestError

SPLITS = ("train", "val", "test")
LABELED_SPLITS = ("train", "val")

_SHARD_NAME = re.compile(r"^(\d+)-(\d+)x(\d+)-(\d+)\.tfrec$")
_SIZE_FOLDER = re.compile(r"^tfrecords-jpeg-(\d+)x(\d+)/?$")
_NO_LABEL = -1
_SHARDS_READ_AT_ONCE = 8  # enough to hide the latency of a bucket


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file, with what its name says of it."""

    path: str
    image_size: int  # side of its square photos, pixels
    count: int  # number of records


@dataclasses.dataclass(frozen=True)
class Split:
    """A split whose every record was read once: what is known of it without its photos.

    Attributes:
        name: `train`, `val` or `test`.
        shards: its files, in name order.
        ids: `[examples]` str, in file order.
        labels: `[examples]` int32 in file order, or None where the split has no labels.
    """

    name: str
    shards: tuple[Shard, ...]
    ids: np.ndarray
    labels: np.ndarray | None

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.ids)


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
    tf.io.gfile.makedirs(directory)
    paths = []
    bounds = np.linspace(0, len(serialized), num_shards + 1).astype(int)
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        name = f"{number:02d}-{image_size}x{image_size}-{end - begin}.tfrec"
        path = files.join(directory, name)
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for record in serialized[begin:end]:
                writer.write(record)
        tf.io.gfile.rename(f"{path}.part", path, overwrite=True)
        paths.append(path)
    return paths


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record to scalars: `image` (string, JPEG), `id` (string) and `label` (int32).

    `label` is -1 where the record has none.
    """
    example = tf.io.parse_single_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "id": tf.io.FixedLenFeature([], tf.string),
            "class": tf.io.FixedLenFeature([], tf.int64, default_value=_NO_LABEL),
        },
    )
    return {
        "image": example["image"],
        "id": example["id"],
        "label": tf.cast(example["class"], tf.int32),
    }


def data_folder(data_dir: str, image_size: int) -> str:
    """Returns the folder that holds `train/`: `data_dir` itself, or its folder for the image size.

    Raises:
        RequestError: there is no such folder, or none of that size.
    """
    if not tf.io.gfile.isdir(data_dir):
        raise RequestError(f"--data_dir={data_dir}: no such folder")
    entries = tf.io.gfile.listdir(data_dir)
    sizes = sorted(int(m.group(1)) for m in map(_SIZE_FOLDER.match, entries) if m)
    if not sizes:
        return data_dir
    if image_size not in sizes:
        raise RequestError(
            f"--image_size={image_size}: --data_dir={data_dir} holds photos of "
            f"{_enumerate(sizes)} pixels; use one of these sizes"
        )
    return files.join(data_dir, f"tfrecords-jpeg-{image_size}x{image_size}")


def find_shards(folder: str, split: str, image_size: int) -> tuple[Shard, ...]:
    """Returns the shards of a split, in name order.

    Raises:
        RequestError: the split's folder is missing or empty, a name is not a shard's, or a shard
            holds photos of another size.
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
        if height != image_size or width != image_size:
            raise RequestError(
                f"{path}: holds photos of {height}x{width} pixels by its name, but "
                f"--image_size={image_size}"
            )
        shards.append(Shard(path, image_size, count))
    if not sum(shard.count for shard in shards):
        raise RequestError(f"--data_dir: {directory}: its shards hold no records")
    return tuple(shards)


def read_split(folder: str, split: str, image_size: int, num_classes: int) -> Split:
    """Reads every record of a split once and checks it, all but decoding its photo.

    Shards are read in parallel (TFRecord checksums included). About 10,000 photos of 512 px per
    second and core from a local disk.

    Raises:
        RequestError: a shard is damaged or holds another number of records than its name says; a
            record lacks a feature, has a label out of range, a photo of another size, or an id that
            another record has; the message names shard, record and id.
    """
    shards = find_shards(folder, split, image_size)
    labeled = split in LABELED_SPLITS
    with concurrent.futures.ThreadPoolExecutor(_SHARDS_READ_AT_ONCE) as pool:
        contents = list(
            pool.map(lambda shard: _read_shard(shard, num_classes if labeled else None), shards)
        )
    ids = np.concatenate([content[0] for content in contents])
    labels = np.concatenate([content[1] for content in contents]) if labeled else None
    _check_ids(ids, shards)
    return Split(split, shards, ids, labels)


def _read_shard(shard: Shard, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids `[count]` (str) and labels `[count]` (int32) of a shard, checked."""
    dataset = (
        tf.data.TFRecordDataset(shard.path, buffer_size=8 << 20)
        .map(_describe, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(1024)
    )
    ids, labels, shapes = [], [], []
    try:
        for batch in dataset.as_numpy_iterator():
            ids.append(batch["id"])
            labels.append(batch["label"])
            shapes.append(batch["shape"])
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as e:
        raise RequestError(_locate_damage(shard)) from e
    ids = np.array([i.decode(errors="replace") for i in np.concatenate(ids or [[]])], dtype=str)
    labels = np.concatenate(labels or [[]]).astype(np.int32)
    if len(ids) != shard.count:
        raise RequestError(
            f"{shard.path}: holds {len(ids)} records, but its name says {shard.count}; "
            "rename it to the true count if nothing is missing, or copy it again"
        )
    if num_classes is not None:
        _check_labels(shard, ids, labels, num_classes)
    if shapes:
        _check_shapes(shard, ids, np.concatenate(shapes))
    return ids, labels


def _describe(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Everything of a record but its pixels; only the JPEG's header is read."""
    example = parse(serialized)
    return {
        "id": example["id"],
        "label": example["label"],
        "shape": tf.io.extract_jpeg_shape(example["image"]),
    }


def _locate_damage(shard: Shard) -> str:
    """Returns a message that names the first record of a shard that cannot be read, and why."""
    number, found = 0, None
    try:
        for serialized in tf.data.TFRecordDataset(shard.path):
            found = _describe_damage(serialized)
            if found:
                break
            number += 1
    except tf.errors.OpError as error:
        found = f"damaged or cut short ({error.message})"
    return (
        f"{shard.path}: record {number} of {shard.count} (counted from 0): "
        f"{found or 'unreadable at the first attempt, readable at the second'}"
    )


def _describe_damage(serialized: tf.Tensor) -> str | None:
    """Returns what is wrong with one record, or None."""
    try:
        example = parse(serialized)
    except tf.errors.OpError:
        return "not a tf.train.Example with the features `image` and `id` (bytes) and `class` (int)"
    try:
        tf.io.extract_jpeg_shape(example["image"])
    except tf.errors.OpError:
        begin = example["image"].numpy()[:8]
        return f"id {example['id'].numpy().decode(errors='replace')}: no JPEG: begins with {begin}"
    return None


def _check_labels(shard: Shard, ids: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        first = wrong[0]
        found = "no label" if labels[first] == _NO_LABEL else f"label {labels[first]}"
        raise RequestError(
            f"{shard.path}: record {first} (counted from 0), id {ids[first]}: {found}, expected 0 "
            f"to {num_classes - 1} ({len(wrong)} such records in this shard); check --classes"
        )


def _check_shapes(shard: Shard, ids: np.ndarray, shapes: np.ndarray) -> None:
    side = shard.image_size
    wrong = np.flatnonzero((shapes[:, 0] != side) | (shapes[:, 1] != side))
    if len(wrong):
        first = wrong[0]
        height, width = shapes[first, :2]
        raise RequestError(
            f"{shard.path}: record {first} (counted from 0), id {ids[first]}: a photo of "
            f"{height}x{width} pixels, expected {side}x{side} ({len(wrong)} such records in this "
            "shard)"
        )


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
