import shutil

import numpy as np
import pytest

from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from flowers_tpu.reports import photos
from flowers_tpu.reports.exploration import images
from tests.photos import jpeg, photo

NAMES = ("iris", "rose", "lotus")


def read(folder, split="train", **options):
    return read_split(str(folder), split, 3, **options)


@pytest.fixture(scope="module")
def jpegs():
    generator = np.random.default_rng(0)
    return [jpeg(photo(generator, 16), quality=60 + n) for n in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpegs):
    folder = tmp_path_factory.mktemp("data")
    serialized = [
        records.serialize_example(f"id-{n}", content, n % 3) for n, content in enumerate(jpegs)
    ]
    records.write_shards(str(folder / "train"), serialized, 16, 3)
    return folder


def test_pixel_statistics_are_those_of_numpy(folder):
    split = read(folder)
    pixels = np.stack(photos.read_photos(split, range(split.size)))
    result = images.pixel_statistics(split)
    np.testing.assert_allclose(result.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(result.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)


def test_photos_left_out_are_not_measured(folder, tmp_path):
    def serialized(last):
        return [
            records.serialize_example("a", jpeg(np.full((16, 16, 3), 60, np.uint8)), 0),
            records.serialize_example("b", jpeg(np.full((16, 16, 3), 20, np.uint8)), 1),
            records.serialize_example("c", last, 1),
        ]

    records.write_shards(str(tmp_path / "train"), serialized(b"no jpeg"), 16, 1)
    result = images.pixel_statistics(read(tmp_path, bad_records="skip"))
    np.testing.assert_allclose(result.mean, [40, 40, 40])
    np.testing.assert_allclose(result.std, [20, 20, 20])


def test_jpeg_sizes_are_those_of_the_files(folder, jpegs):
    split = read(folder)
    sizes = [len(content) for content in jpegs]
    assert list(split.jpeg_sizes) == sizes
    table = images.jpeg_sizes({"train": split.jpeg_sizes})
    (row,) = table.to_dict("records")
    assert row == {
        "split": "train",
        "photos": 20,
        "total": sum(sizes),
        "mean": pytest.approx(sum(sizes) / 20),
        "min": min(sizes),
        "5%": pytest.approx(np.percentile(sizes, 5)),
        "25%": pytest.approx(np.percentile(sizes, 25)),
        "median": pytest.approx(np.median(sizes)),
        "75%": pytest.approx(np.percentile(sizes, 75)),
        "95%": pytest.approx(np.percentile(sizes, 95)),
        "max": max(sizes),
    }


def test_the_histogram_shows_shares_of_each_split():
    sizes = {"train": np.array([1000, 1000, 2000, 5000]), "test": np.array([3000, 5000])}
    (axes,) = images.plot_jpeg_sizes(sizes).axes
    train, test = (patch.get_data() for patch in axes.patches)
    np.testing.assert_allclose(train.edges, [1, 3, 5])  # 6 photos: 2 bars
    np.testing.assert_allclose(train.values, [75, 25])
    np.testing.assert_allclose(test.values, [0, 100])
    assert [line.get_xdata()[0] for line in axes.lines] == [1.5, 4.0]
    assert "kB" in axes.get_xlabel() and "%" in axes.get_ylabel()


def test_photos_of_one_size_have_a_histogram():
    (axes,) = images.plot_jpeg_sizes({"train": np.array([700] * 9)}).axes
    assert axes.patches[0].get_data().values.sum() == pytest.approx(100)


def test_duplicates(tmp_path, jpegs):
    a, b, c, d, e = jpegs[:5]
    contents = {
        "train": [(a, 0), (b, 1), (a, 0), (c, 2), (d, 0)],
        "val": [(c, 2), (e, 1), (d, 1)],
        "test": [(c, None)],
    }
    for split, examples in contents.items():
        serialized = [
            records.serialize_example(f"{split}-{n}", content, label)
            for n, (content, label) in enumerate(examples)
        ]
        records.write_shards(str(tmp_path / split), serialized, 16, 1)
    table = images.duplicates([read(tmp_path, split) for split in contents], NAMES)
    assert list(table.itertuples(index=False, name=None)) == [
        (1, "train", 0, "train-0", 0, "iris"),
        (1, "train", 2, "train-2", 0, "iris"),
        (2, "train", 3, "train-3", 2, "lotus"),
        (2, "val", 0, "val-0", 2, "lotus"),
        (2, "test", 0, "test-0", -1, ""),
        (3, "train", 4, "train-4", 0, "iris"),
        (3, "val", 2, "val-2", 1, "rose"),
    ]
    assert list(table) == ["group", "split", "index", "id", "label", "class"]
    assert images.count_duplicates(table) == {
        "groups": 3,
        "photos": 7,
        "across_splits": 2,
        "contradicting_labels": 1,
    }


def test_no_duplicates(folder):
    table = images.duplicates([read(folder)], NAMES)
    assert len(table) == 0
    assert set(images.count_duplicates(table).values()) == {0}


def test_fingerprints_follow_the_records_in_use(folder, tmp_path, jpegs):
    shutil.copytree(folder / "train", tmp_path / "train")
    assert len(set(read(folder).fingerprints)) == 20
    serialized = [
        records.serialize_example("x", b"no jpeg", 0),
        records.serialize_example("y", jpegs[7], 0),
    ]
    records.write_shards(str(tmp_path / "val"), serialized, 16, 1)
    val = read(tmp_path, "val", bad_records="skip")
    assert list(val.fingerprints) == [read(folder).fingerprints[7]]
    assert list(val.jpeg_sizes) == [len(jpegs[7])]
