"""A small split of grey photos, written and read."""

import pytest
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError

SIZE = 16
CLASSES = 3
LABELS = [2, 0, 1, 1, 0, 2, 0]
IDS = [f"id{number}" for number in range(len(LABELS))]
SECOND = "01-16x16-2.tfrec"  # of its three shards, which hold 2, 2 and 3 records


def jpeg(height=SIZE, width=SIZE, channels=3):
    return tf.io.encode_jpeg(tf.zeros([height, width, channels], tf.uint8)).numpy()


def png():
    return tf.io.encode_png(tf.zeros([SIZE, SIZE, 3], tf.uint8)).numpy()


def bytes_feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(folder, split="train", labels=LABELS, num_shards=3, replaced=None):
    """Writes a split, one record replaced by other bytes where `replaced` says so."""
    serialized = [
        records.serialize_example(example_id, jpeg(), label)
        for example_id, label in zip(IDS, labels, strict=True)
    ]
    for number, content in (replaced or {}).items():
        serialized[number] = content
    return records.write_shards(str(folder / split), serialized, SIZE, num_shards)


def read(folder, split="train"):
    return read_split(str(folder), split, CLASSES)


def error_of(folder, split="train"):
    with pytest.raises(RequestError) as caught:
        read(folder, split)
    return str(caught.value)


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())
