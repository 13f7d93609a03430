import functools

import numpy as np
import pandas as pd
import pytest

from flowers_tpu.data import decode, pipeline, records, source
from flowers_tpu.data.augment import apply
from flowers_tpu.data.augment.options import Augmentation
from flowers_tpu.data.splits import read_split
from flowers_tpu.reports import photos
from flowers_tpu.reports.exploration import sheets
from tests.photos import jpeg, write_split

NAMES = ("iris", "rose", "lotus")
SIZE = 16


def write(folder, split, levels, labels):
    """Photos of one level of grey each."""
    serialized = [
        records.serialize_example(
            f"{split}-{n}", jpeg(np.full((SIZE, SIZE, 3), level, np.uint8)), label
        )
        for n, (level, label) in enumerate(zip(levels, labels, strict=True))
    ]
    records.write_shards(str(folder / split), serialized, SIZE, 2)
    return read_split(str(folder), split, len(NAMES))


def levels(figure) -> list[int]:
    return [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]


def titles(figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_text()]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write(folder, "train", range(0, 240, 10), [n % 3 for n in range(24)])


def test_a_random_sample_has_no_repetition_and_its_seed():
    everything = np.arange(50) + 100
    sample = sheets.random_sample(everything, 20, seed=1)
    assert len(set(sample)) == 20 and set(sample) <= set(everything)
    np.testing.assert_array_equal(sample, sheets.random_sample(everything, 20, seed=1))
    assert list(sample) != list(sheets.random_sample(everything, 20, seed=2))
    assert sorted(sheets.random_sample(everything[:3], 20, seed=1)) == [100, 101, 102]


def test_a_sample_has_the_right_titles(train):
    figure = sheets.sample_sheet(train, NAMES, seed=5)
    heading, *names = titles(figure)
    shown = levels(figure)
    assert len(set(shown)) == 20
    assert names == [NAMES[level // 10 % 3] for level in shown]
    assert heading == "train: 20 of 24 photos"


def test_test_photos_have_no_titles(tmp_path):
    test = write(tmp_path, "test", [10, 20], [None, None])
    figure = sheets.sample_sheet(test, NAMES, seed=5)
    assert sorted(levels(figure)) == [10, 20]
    assert titles(figure) == ["test: 2 of 2 photos"]


def test_a_class_alone(tmp_path, train):
    val = write(tmp_path, "val", [5, 15, 25], [0, 1, 1])
    figure = sheets.class_sheet([train, val], 1, "rose", seed=0)
    assert sorted(levels(figure)[:8]) == list(range(10, 240, 30))
    assert sorted(levels(figure)[8:]) == [15, 25]
    heading, *names = titles(figure)
    assert heading == "rose (label 1): 8 in train, 2 in val"
    assert sorted(names[8:]) == ["val val-1", "val val-2"]
    assert sheets.class_sheet([val], 2, "lotus", seed=0) is None


def test_draws_go_across(train):
    calls = []

    def augment_photo(content, number):
        calls.append((content, number))
        return np.full((SIZE, SIZE, 3), number, np.uint8)

    figure = sheets.augmentation_sheet(train, NAMES, augment_photo, seed=0)
    rows = np.reshape(levels(figure), [5, 7])
    np.testing.assert_array_equal(rows[:, 1:].ravel(), range(30))  # every draw another
    for row, original in enumerate(rows[:, 0]):
        expected = jpeg(np.full((SIZE, SIZE, 3), original, np.uint8))
        assert all(content == expected for content, _ in calls[row * 6 : row * 6 + 6])
    texts = titles(figure)
    assert [t for t in texts if t in ("photo", *(f"draw {n}" for n in range(1, 7)))] == [
        "photo", "draw 1", "draw 2", "draw 3", "draw 4", "draw 5", "draw 6",
    ]  # fmt: skip
    assert [t for t in texts if t in NAMES] == [NAMES[level // 10 % 3] for level in rows[:, 0]]


def test_an_augmented_photo_is_what_the_pipeline_gives(tmp_path):
    write_split(tmp_path, "train", 6, size=3 * SIZE, shards=1)
    split = read_split(str(tmp_path), "train", 3)
    augmentation = Augmentation(hue=0.1)
    decoder = decode.for_training(split.photo_size, SIZE, augmentation.least_side)
    assert decoder.factor == 2
    dataset = pipeline.train_dataset(
        source.from_files(split, decoder),
        global_batch_size=6,
        local_batch_size=6,
        augment_photo=functools.partial(apply.on_host, image_size=SIZE, augmentation=augmentation),
        seed=3,
        shuffle_buffer=1,  # file order
        num_steps=2,
    )
    seen = np.concatenate([batch["image"] for batch in dataset.as_numpy_iterator()])
    jpegs = photos.read_jpegs(split, range(6))
    for number, image in enumerate(seen):
        mine = sheets.augmented(
            jpegs[number % 6],
            number,
            seed=3,
            decoder=decoder,
            image_size=SIZE,
            augmentation=augmentation,
        )
        np.testing.assert_array_equal(mine, image)


def test_equal_photos_stand_side_by_side(tmp_path, train):
    val = write(tmp_path, "val", [5, 15, 25], [0, 1, 1])
    rows = [
        (1, "train", 3, "train-3", 0, "iris"),
        (1, "train", 2, "train-2", 2, "lotus"),
        (2, "train", 7, "train-7", 1, "rose"),
        (2, "train", 9, "train-9", 0, "iris"),
        (2, "val", 1, "val-1", 1, "rose"),
    ]
    table = pd.DataFrame(rows, columns=["group", "split", "index", "id", "label", "class"])
    figure = sheets.duplicate_sheet(table, {"train": train, "val": val})
    assert levels(figure) == [70, 90, 15, 30, 20]  # the group across splits first
    heading, *texts = titles(figure)
    assert heading == "Groups of byte-identical photos: 2"
    assert texts[:4] == ["train train-7\nrose", "train train-9\niris", "val val-1\nrose",
                         "group 2: 3 photos"]  # fmt: skip


def test_many_equal_photos_are_cut(train):
    rows = [(1, "train", n, f"train-{n}", 0, "iris") for n in range(7)]
    rows += [(2 + n // 2, "train", 7, "train-7", 1, "rose") for n in range(30)]
    table = pd.DataFrame(rows, columns=["group", "split", "index", "id", "label", "class"])
    figure = sheets.duplicate_sheet(table, {"train": train})
    assert levels(figure) == [0, 10, 20, 30, 40] + [70] * 22
    assert "group 1: 7 photos, 5 shown" in " ".join(titles(figure)).replace("\n", " ")
    assert titles(figure)[0] == "Groups of byte-identical photos: 16, 12 shown"
