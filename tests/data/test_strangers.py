"""What is in a shard's place, or in a data set's: named once, with what to do."""

import gzip
import re
import zlib

import pytest
import tensorflow as tf

from flowers_tpu.data import shard_bytes, verify
from flowers_tpu.data.shards import data_folder, find_shards
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.photos import write_split

COUNT = 3


@pytest.fixture
def shard(tmp_path):
    write_split(tmp_path, "train", COUNT, shards=1)
    return tmp_path / "train" / f"00-32x32-{COUNT}.tfrec"


def problems(shard, num_classes=3):
    found = verify.examine(
        str(shard), image_size=32, count=COUNT, num_classes=num_classes, decode=False
    )
    assert not found.used and found.left_out == tuple(range(COUNT))
    return [str(problem) for problem in found.problems]


def rewritten(shard, compression="", **others):
    """Writes the records of a shard again, with some features under other names or values."""
    serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    with tf.io.TFRecordWriter(str(shard), compression) as writer:
        for record in serialized:
            example = tf.train.Example.FromString(record)
            for name, change in others.items():
                feature = tf.train.Feature()
                feature.CopyFrom(example.features.feature[name])
                del example.features.feature[name]
                change(example.features.feature, feature)
            writer.write(example.SerializeToString())
    return shard


@pytest.mark.parametrize("name", ["GZIP", "ZLIB"])
def test_compressed_records_are_named(shard, name):
    (found,) = problems(rewritten(shard, name))
    assert f"compressed by {name.lower()}" in found and "--from_tfrecords" in found
    assert shard_bytes.compression_of(shard.read_bytes()) == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page: .*fetch it again"),
        (b"<HTML><body>sign in", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML file, such as a bucket"),
        (b'{"error": 404, "message": "no such object"}', "a JSON file"),
        (b"PK\3\4" + bytes(40), "a zip archive; unpack it"),
        (gzip.compress(b"a tar of shards", mtime=0), "compressed by gzip, and holds no records"),
        (b"BZh91AY" + bytes(40), "compressed by bzip2"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a JPEG, no shard"),
    ],
)
def test_what_else_is_in_a_shards_place_is_named(shard, content, message):
    shard.write_bytes(content)
    (found,) = problems(shard)
    assert re.search(f"{shard}: is {message}", found)


def test_damaged_records_are_not_taken_for_something_else(shard):
    content = bytearray(shard.read_bytes())
    assert shard_bytes.stranger(bytes(content)) == "" and shard_bytes.stranger(b"") == ""
    content[2] ^= 1
    assert shard_bytes.compression_of(bytes(content)) is None
    assert shard_bytes.stranger(bytes(content)) == ""
    assert shard_bytes.compression_of(zlib.compress(b"no records")) is None
    assert shard_bytes.stranger(b"{" + bytes(40)) == ""  # a length of 123 bytes


def under(name):
    def change(features, feature):
        features[name].CopyFrom(feature)

    return change


def as_text(features, feature):
    features["class"].bytes_list.value.append(b"rose")


def one_hot(features, feature):
    features["class"].float_list.value.extend([0, 1, 0])


@pytest.mark.parametrize(
    ("others", "has", "lacks"),
    [
        ({"image": under("image/encoded")}, "`image/encoded` (bytes)", "`image` and `id` (bytes)"),
        ({"id": under("image/filename")}, "`image/filename` (bytes)", "not a tf.train.Example"),
        ({"class": as_text}, "`class` (bytes)", "`class` (int)"),
        ({"class": one_hot}, "`class` (3 × float)", "`class` (int)"),
        ({"class": under("label")}, "`label` (int)", "no label, expected 0 to 2"),
        ({"class": lambda *_: None}, "`id` (bytes), `image` (bytes)", "no label"),
    ],
)
def test_other_features_are_said_once_per_shard(shard, others, has, lacks):
    (found,) = problems(rewritten(shard, **others))
    assert has in found and lacks in found
    assert f"all {COUNT} records" in found and "--from_tfrecords" in found


def test_training_data_without_labels_are_named(shard, tmp_path):
    rewritten(shard, **{"class": under("label")})
    with pytest.raises(RequestError, match="no labels"):
        read_split(str(tmp_path), "train", 3)


# In a data set's place


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.tfrecord"], "shards under other names, such as train.tfrecord"),
        (["train-00000-of-00002"], "such as train-00000-of-00002.*--from_tfrecords="),
        (["train/flowers00-230.tfrec"], "not a shard's name.*--from_tfrecords="),
        (["train/a.tfrecords.gz"], "such as a.tfrecords.gz"),
        (["rose/1.jpg", "tulip/2.JPEG"], "photos, such as rose/1.jpg.*make_tfrecords.py --photos="),
        (["data/train/x", "data/val/x", "data/test/x"], "Did you mean --data_dir=.*/data[?]"),
        (["flowers/tfrecords-jpeg-192x192/x"], "Did you mean --data_dir=.*/flowers[?]"),
        (["tpu-getting-started.zip"], "holds tpu-getting-started.zip: unpack it"),
        (["notes.txt"], r"like 00-192x192-128.tfrec$"),
    ],
)
def test_a_folder_that_is_no_data_set_is_told_from_others(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(RequestError, match=message):
        find_shards(data_folder(str(tmp_path), 192), "train")


def test_a_split_that_is_given_for_its_data_set_is_told(tmp_path, monkeypatch):
    write_split(tmp_path, "train", 2, shards=1)
    (tmp_path / "val").mkdir()
    (tmp_path / "test").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, meant in ((f"{tmp_path}/train", tmp_path), ("train/", ".")):
        with pytest.raises(RequestError, match=f"Did you mean --data_dir={meant}[?]"):
            find_shards(data_folder(given, 32), "train")


def test_a_missing_folder_is_told_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.zip").touch()
    for given, message in (
        ("d", f"--data_dir=d: no such folder .a path from {tmp_path}"),
        (f"{tmp_path}/d", r"/d: no such folder$"),
        ("d.zip", "--data_dir=d.zip: is a file, no folder: unpack it"),
    ):
        with pytest.raises(RequestError, match=message):
            data_folder(given, 32)
