"""The data of a run: what they are called, what is missing, and knowing them again."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import decode, fingerprints, records, shards
from flowers_tpu.data.options import DataOptions
from flowers_tpu.data.splits import read_split
from flowers_tpu.runs import data as data_lib
from flowers_tpu.system.errors import RequestError
from tests.photos import write_data_set, write_split

NAMES = ("class 0", "class 1", "class 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def options(folder, **changes):
    return DataOptions(data_dir=str(folder), image_size=32, **changes)


def load(folder, trained_names=None, **changes):
    return data_lib.load(options(folder, **changes), trained_names=trained_names)


def rewrite_names(folder, *names):
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))


# Fingerprints


def test_the_content_is_the_same_in_other_shards_and_with_other_labels(folder, copy):
    split = read_split(str(folder), "train", 3)
    shutil.rmtree(copy / "train")
    write_split(copy, "train", split.size, shards=3)
    other = read_split(str(copy), "train", 3)
    assert fingerprints.content(split, NAMES) == fingerprints.content(other, NAMES)
    assert fingerprints.order(split) != fingerprints.order(other)
    turned = dataclasses.replace(split, labels=2 - split.labels)
    assert fingerprints.content(turned, NAMES[::-1]) == fingerprints.content(split, NAMES)
    assert fingerprints.content(turned, NAMES) != fingerprints.content(split, NAMES)
    assert fingerprints.order(turned) != fingerprints.order(split)


@pytest.mark.parametrize("field", ["fingerprints", "labels"])
def test_one_photo_or_label_makes_another_fingerprint(folder, field):
    split = read_split(str(folder), "train", 3)
    values = getattr(split, field).copy()
    values[5] = (values[5] + 1) % 3
    other = dataclasses.replace(split, **{field: values})
    assert fingerprints.content(other, NAMES) != fingerprints.content(split, NAMES)
    assert fingerprints.order(other) != fingerprints.order(split)


def test_moved_data_are_the_same(folder, copy):
    record = json.loads(json.dumps(data_lib.record_of(load(folder))))
    data_lib.check_unchanged(record, load(f"{copy}/"), f"{copy}/")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: rewrite_names(f, *NAMES[::-1]), "class 0 is 'class 2', but was 'class 0'"),
        (lambda f: rewrite_names(f, *NAMES, "d"), "has 4 classes, but the run began with 3"),
        (lambda f: sorted((f / "train").iterdir())[1].unlink(), "train has 12 photos"),
        (lambda f: write_again(f, "train", 24, seed=7), "train holds other photos or labels"),
        (lambda f: write_again(f, "val", 9, shards=3), "val has other shards, or another order"),
    ],
)  # fmt: skip
def test_changed_data_are_refused_by_the_first_difference(folder, copy, change, message):
    record = data_lib.record_of(load(folder))
    change(copy)
    with pytest.raises(RequestError, match=f"--data_dir=x: {message}"):
        data_lib.check_unchanged(record, load(copy), "x")


def write_again(folder, split, count, **options):
    shutil.rmtree(folder / split)
    write_split(folder, split, count, **options)


# Names of classes


def test_labels_are_mapped_to_those_of_the_run_by_name(folder, copy):
    rewrite_names(copy, *NAMES[::-1])
    trained = ("another", *NAMES)
    data = load(copy, trained)
    assert data.class_names == trained
    own = load(folder).splits
    for name in ("train", "val"):
        np.testing.assert_array_equal(data.splits[name].labels, 3 - own[name].labels)
    assert data.splits["test"].labels is None


def test_a_class_that_the_run_does_not_know_is_named(copy):
    rewrite_names(copy, "anemone", *NAMES[1:])
    with pytest.raises(RequestError, match=r"photos of 'anemone' \(label 0\).*does not know"):
        load(copy, NAMES)


def test_a_name_without_photos_is_no_matter(copy):
    rewrite_names(copy, *NAMES, "without photos")
    assert load(copy, NAMES).class_names == NAMES


def test_without_names_three_classes_are_not_called_by_the_competitions(copy):
    (copy / "classes.txt").unlink()
    with pytest.raises(RequestError, match=r"no classes.txt, and its labels are 0 to 2"):
        load(copy)
    assert load(copy, NAMES).class_names == NAMES, "a run knows them"
    write_again(copy, "train", 300, num_classes=104)
    assert load(copy).class_names[0] == "pink primrose"


def test_names_and_sample_are_found_next_to_the_folders_of_sizes(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "tfrecords-jpeg-32x32")
    for name in ("classes.txt", "sample_submission.csv"):
        (tmp_path / "tfrecords-jpeg-32x32" / name).rename(tmp_path / name)
    assert load(tmp_path).class_names == NAMES
    (tmp_path / "sample_submission.csv").write_text("id,label\nother,0\n")
    with pytest.raises(RequestError, match=r"sample_submission.csv: lists 1 ids"):
        load(tmp_path)


def test_that_ids_are_not_compared_is_said(copy, capsys):
    (copy / "sample_submission.csv").unlink()
    load(copy)
    assert (
        "no sample_submission.csv to compare the test photos' ids with" in capsys.readouterr().out
    )


# What is missing


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: sorted(f.iterdir())[0].unlink(), r"no shard 00, though there is one 01"),
        (lambda f: (f / "02-32x32-9.tfrec.crdownload").touch(), "crdownload: looks like a downl"),
        (lambda f: (f / "02-32x32-9.tfrec.part").touch(), "looks like a download"),
    ],
)
def test_shards_that_seem_to_be_missing_are_said(copy, change, said, caplog):
    assert shards.oddities(str(copy), "train") == []
    change(copy / "train")
    (oddity,) = shards.oddities(str(copy), "train")
    assert str(copy / "train") in oddity
    with caplog.at_level("WARNING"):
        load(copy)
    import re

    assert re.search(said, oddity) and oddity in caplog.text


# Sizes


def test_photos_smaller_than_the_model_sees_are_enlarged_with_one_line(folder, caplog):
    with caplog.at_level("WARNING"):
        data = data_lib.load(DataOptions(data_dir=str(folder), image_size=48))
    assert caplog.text.count("have 32 px, and are enlarged") == 1
    decoder = decode.for_evaluation(data.splits["val"].photo_size, 48)
    serialized = next(iter(tf.data.TFRecordDataset(data.splits["val"].shards[0].path)))
    jpeg = records.parse(serialized)["image"]
    expected = tf.image.resize(tf.io.decode_jpeg(jpeg, channels=3), [48, 48], antialias=True)
    np.testing.assert_allclose(decoder(jpeg), expected, atol=0.5)
    for size in (48, 20):
        trained = decode.for_training(32, size, 0.5)
        assert trained.side == 32, "augmentation cuts from the photo, then resizes to the size"
