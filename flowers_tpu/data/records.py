"""The file format of the competition: how a record is written, and how it is read.

A data set is a folder with `train/`, `val/` and `test/`, each holding shards named
`NN-SIZExSIZE-COUNT.tfrec`. A record is a `tf.train.Example` with `image` (JPEG bytes), `id` (bytes)
and, where the split is labeled, `class` (int64).
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu.system import files

SPLITS = ("train", "val", "test")
LABELED_SPLITS = ("train", "val")
NO_LABEL = -1
READ_BUFFER = 256 << 10  # bytes; several shards are read at a time, in pieces of this size


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record to scalars: `image` (string, JPEG), `id` (string) and `label` (int32).

    `label` is -1 where the record has none.
    """
    example = tf.io.parse_single_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "id": tf.io.FixedLenFeature([], tf.string),
            "class": tf.io.FixedLenFeature([], tf.int64, default_value=NO_LABEL),
        },
    )
    # Kept within int32 first: a label of 2**32 must not come out as 0.
    label = tf.clip_by_value(example["class"], tf.int32.min, tf.int32.max)
    return {"image": example["image"], "id": example["id"], "label": tf.cast(label, tf.int32)}


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
    files.make_dirs(directory)
    part = files.join(directory, f"{number:02d}-{image_size}x{image_size}.part")
    count = 0

    def write(serialized: bytes) -> None:
        nonlocal count
        writer.write(serialized)
        count += 1

    with tf.io.TFRecordWriter(part) as writer:
        yield write
    files.rename(part, _shard_path(directory, number, image_size, count))


def _shard_path(directory: str, number: int, image_size: int, count: int) -> str:
    return files.join(directory, f"{number:02d}-{image_size}x{image_size}-{count}.tfrec")
