"""Splits that are made of others: some of their examples, or those of several."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import decode, pipeline, records, source
from flowers_tpu.data.splits import chosen, joined, read_split
from flowers_tpu.reports import photos as photo_reading
from tests.photos import write_split

pytestmark = pytest.mark.core


@pytest.fixture
def folder(tmp_path):
    """9 photos in three shards for training; 5 for validation."""
    write_split(tmp_path, "train", 9, shards=3)
    write_split(tmp_path, "val", 5, shards=2, seed=1)
    return tmp_path


def read(folder, name):
    """Its split; records 1 and 4 of training are taken to be bad."""
    split = read_split(str(folder), name, 3)
    if name != "train":
        return split
    good = np.array([n not in (1, 4) for n in range(9)])
    bad = chosen(name, split, good)
    shards = (
        dataclasses.replace(shard, left_out=shard.passed_over, passed_over=())
        for shard in bad.shards
    )
    return dataclasses.replace(bad, shards=tuple(shards))


def read_all(split, cache="none"):
    """The (label, image) of the examples of a split, as they are read of its files."""
    made = source.MAKERS[cache](split, decode.for_evaluation(32, 32))
    dataset = pipeline.eval_dataset(made, global_batch_size=1, local_batch_size=1)
    batches = list(dataset.as_numpy_iterator())
    return [int(b["label"][0]) for b in batches], [b["image"][0] for b in batches]


@pytest.mark.parametrize("cache", source.MAKERS)
def test_those_that_are_wanted_are_read_and_no_others(folder, cache):
    split = read(folder, "train")
    labels, images = read_all(split)
    wanted = np.array([True, False, False, True, True, False, True])
    some = chosen("some", split, wanted)
    assert some.name == "some" and some.size == 4 and some.left_out == 2
    assert some.ids.tolist() == split.ids[wanted].tolist()
    assert [shard.count for shard in some.shards] == [1, 1, 2]
    found_labels, found_images = read_all(some, cache)
    assert found_labels == np.array(labels)[wanted].tolist() == some.labels.tolist()
    np.testing.assert_array_equal(found_images, np.array(images)[wanted])
    # What was chosen is chosen from again; nothing is left of the first shard.
    last = chosen("last", some, np.array([False, True, False, True]), with_problems=False)
    assert [shard.count for shard in last.shards] == [0, 1, 1] and last.left_out == 0
    np.testing.assert_array_equal(read_all(last, cache)[1], np.array(images)[[3, 6]])


def test_parts_of_one_split_share_its_examples_and_its_bad_records(folder):
    split = read(folder, "train")
    wanted = np.arange(7) % 3 == 0
    parts = chosen("a", split, wanted), chosen("b", split, ~wanted, with_problems=False)
    assert sorted(np.concatenate([part.ids for part in parts])) == sorted(split.ids)
    assert [part.left_out for part in parts] == [2, 0]
    images = np.concatenate([read_all(part)[1] for part in parts])
    order = np.concatenate([np.flatnonzero(wanted), np.flatnonzero(~wanted)])
    np.testing.assert_array_equal(images, np.array(read_all(split)[1])[order])


@pytest.mark.parametrize("cache", source.MAKERS)
def test_one_split_of_two(folder, cache):
    train, val = read(folder, "train"), read(folder, "val")
    both = joined("train", [train, val])
    assert (both.name, both.size, both.left_out) == ("train", 12, 2)
    labels, images = read_all(both, cache)
    assert labels == [*train.labels, *val.labels]
    np.testing.assert_array_equal(images, [*read_all(train)[1], *read_all(val)[1]])


def test_ids_that_two_splits_share_are_told_apart(folder):
    train, val = read(folder, "train"), read(folder, "val")
    assert joined("train", [train, val]).ids.tolist() == [*train.ids, *val.ids]
    val = dataclasses.replace(val, ids=train.ids[:5])
    both = joined("train", [train, val]).ids.tolist()
    assert both == [*(f"train/{name}" for name in train.ids), *(f"val/{name}" for name in val.ids)]


@pytest.mark.parametrize("cache", source.MAKERS)
def test_other_labels_than_those_in_the_records_are_trained_with(folder, cache):
    split = read(folder, "val")
    relabeled = dataclasses.replace(split, labels=np.array([2, 2, 0, 1, 7], np.int32),
                                    relabeled=True)  # fmt: skip
    some = chosen("val", relabeled, np.array([True, False, True, True, True]))
    assert read_all(some, cache)[0] == [2, 0, 1, 7]
    np.testing.assert_array_equal(
        read_all(some, cache)[1], np.array(read_all(split)[1])[[0, 2, 3, 4]]
    )
    # In training they stay with their photos, whatever the order.
    of_photo = {image.tobytes(): label for label, image in zip(*read_all(some), strict=True)}
    made = source.MAKERS[cache](some, decode.for_evaluation(32, 32))
    batches = pipeline.train_dataset(
        *(made,), global_batch_size=2, local_batch_size=2, augment_photo=None, seed=3,
        shuffle_buffer=4, num_steps=6,
    )  # fmt: skip
    for batch in batches.as_numpy_iterator():
        for image, label in zip(batch["image"], batch["label"], strict=True):
            assert of_photo[image.tobytes()] == label


def test_photos_are_shown_of_a_part_of_a_split(folder):
    split = read(folder, "train")
    some = chosen("some", split, np.array([False, True, False, True, False, True, True]))
    expected = [
        records.parse(record)["image"].numpy() for record in of_ids(split, some.ids[[3, 1]])
    ]
    assert photo_reading.read_jpegs(some, [3, 1]) == expected


def of_ids(split, ids):
    """The serialized records of some ids, looked for in the files themselves."""
    paths = [shard.path for shard in split.shards]
    found = {records.parse(r)["id"].numpy().decode(): r for r in tf.data.TFRecordDataset(paths)}
    return [found[name] for name in ids]
