import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from flowers_tpu.convert import convert
from flowers_tpu.data import check, classes, records
from flowers_tpu.data.shards import data_folder
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError, RunError
from tests.convert.converting import (
    BRIGHTNESS,
    bytes_of,
    draw,
    draw_all,
    make,
    photos_of,
    read,
    table,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_all(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def output(photos, tmp_path_factory):
    return make(tmp_path_factory.mktemp("data") / "made", photos=str(photos))


def test_layout_is_the_competitions(output):
    assert sorted(path.name for path in output.iterdir()) == [
        *("class_counts.csv", "conversion.json", "photos.csv", "summary.csv"),
        *("tfrecords-jpeg-16x16", "tfrecords-jpeg-24x24", "unreadable.csv"),
    ]
    counts = {"train": [6, 6, 6], "val": [2, 2, 2], "test": [2, 2, 2]}  # of 3 x 10 photos
    for size in (16, 24):
        folder = output / f"tfrecords-jpeg-{size}x{size}"
        assert sorted(path.name for path in folder.iterdir()) == [
            *("classes.txt", "sample_submission.csv", "test", "train", "val")
        ]
        assert classes.read_classes(str(folder / "classes.txt")) == ("iris", "rose", "tulip")
        for split, per_shard in counts.items():
            names = [f"{n:02d}-{size}x{size}-{count}.tfrec" for n, count in enumerate(per_shard)]
            assert sorted(os.listdir(folder / split)) == names


def test_nothing_is_wrong_with_it(output):
    for size in (16, 24):
        report = check.check(data_folder(str(output), size), 3)
        assert report.problems == []
        assert report.summary["records"].tolist() == [18, 6, 6]


def test_every_record_has_the_photo_and_label_of_its_id(output):
    seen = []
    for split in records.SPLITS:
        found = read(output, split)
        for size in (16, 24):
            pixels = photos_of(output, split, size)
            assert list(pixels) == found.ids.tolist()  # the same order in all sizes
            for example_id, photo in pixels.items():
                label, number = example_id.split("-")
                assert photo.shape == (size, size, 3)
                expected = [BRIGHTNESS[label], 20 * int(number), 90]
                np.testing.assert_allclose(photo.mean((0, 1)), expected, atol=5)
        if split != "test":
            names = [("iris", "rose", "tulip")[label] for label in found.labels]
            assert names == [example_id.split("-")[0] for example_id in found.ids]
            assert found.labels.tolist() != sorted(found.labels)  # mixed
        seen += found.ids.tolist()
    assert sorted(seen) == sorted(f"{name}-{n}" for name in BRIGHTNESS for n in range(10))


def test_the_test_split_hides_its_labels_and_the_tables_have_them(output):
    shard = next((output / "tfrecords-jpeg-16x16" / "test").iterdir())
    for record in tf.data.TFRecordDataset(str(shard)):
        assert "class" not in tf.train.Example.FromString(record.numpy()).features.feature
    sample = pd.read_csv(output / "tfrecords-jpeg-16x16" / "sample_submission.csv")
    assert list(sample.columns) == ["id", "label"]
    assert sorted(sample["id"]) == sorted(read(output, "test").ids)
    photos = table(output, "photos")
    assert photos["path"].tolist() == sorted(photos["path"])
    row = photos.set_index("id").loc[sample["id"][0]]
    assert row["split"] == "test"
    assert row["label"] == sample["id"][0].split("-")[0]
    assert (row["width"], row["height"], row["same_as"]) == (40, 30, "")


def test_counts_are_in_tables(output):
    assert table(output, "class_counts").to_csv(index=False) == (
        "label,class,train,val,test\n0,iris,6,2,2\n1,rose,6,2,2\n2,tulip,6,2,2\n"
    )
    summary = table(output, "summary")
    assert summary.drop(columns="megabytes").to_numpy().tolist() == [
        [size, split, count, 3, 0]
        for size in (16, 24)
        for split, count in (("train", 18), ("val", 6), ("test", 6))
    ]
    assert (output / "unreadable.csv").read_text() == "path,problem\n"


def test_bytes_do_not_depend_on_the_number_of_threads_or_where_photos_are(
    photos, output, tmp_path, monkeypatch
):
    monkeypatch.chdir(photos.parent)
    assert bytes_of(make(tmp_path / "b", photos=photos.name, threads=5)) == bytes_of(output)


def test_another_seed_divides_otherwise_and_ids_stay(photos, output, tmp_path):
    other = make(tmp_path / "other", photos=str(photos), seed=1, sizes="16")
    one, two = (table(folder, "photos").set_index("path") for folder in (output, other))
    assert (one["id"] == two["id"]).all()
    assert (one["split"] != two["split"]).any()


def test_its_own_photos_csv_gives_the_same_again(photos, output, tmp_path):
    flags = {"photos": str(photos), "csv": str(output / "photos.csv")}
    again = make(tmp_path / "again", **flags, seed=0, val_fraction=0.4, test_fraction=0.5)
    made = {name: data for name, data in bytes_of(output).items() if name != "conversion.json"}
    assert made.items() <= bytes_of(again).items()


def test_a_csv_with_given_splits_and_unlabeled_photos(photos, tmp_path):
    rows = [f"iris/{n}.jpg,1,train" for n in range(3)] + [f"rose/{n}.jpg,0," for n in range(5)]
    rows += ["tulip/0.jpg,1,val", "tulip/1.jpg,,"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    output = make(tmp_path / "data", csv=str(tmp_path / "list.csv"), photos=str(photos))
    assert sorted(read(output, "train", num_classes=2).labels) == [0] * 5 + [1] * 3
    assert read(output, "val", num_classes=2).labels.tolist() == [1]
    assert read(output, "test").ids.tolist() == ["tulip-1"]
    assert table(output, "class_counts").to_numpy().tolist() == [
        [*("0", "0"), 5, 0, 0],
        [*("1", "1"), 3, 1, 0],
        ["", "(no class known)", 0, 0, 1],
    ]


def test_classes_keep_the_labels_of_a_file(photos, tmp_path):
    (tmp_path / "names.txt").write_text("tulip\nlily\nrose\niris\n")
    output = make(tmp_path / "data", photos=str(photos), classes=str(tmp_path / "names.txt"))
    train = read(output, "train", num_classes=4)
    expected = {"tulip": 0, "rose": 2, "iris": 3}
    assert train.labels.tolist() == [expected[i.split("-")[0]] for i in train.ids]
    names = output / "tfrecords-jpeg-24x24" / "classes.txt"
    assert names.read_text() == "tulip\nlily\nrose\niris\n"


def spoil(folder):
    """Adds four files that are no photos, and one that is no photo by its name."""
    (folder / "iris" / "text.jpg").write_text("no picture")
    (folder / "rose" / "empty.png").write_bytes(b"")
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    (folder / "rose" / "cut.jpg").write_bytes(buffer.getvalue()[:-2000])
    (folder / "tulip" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "tulip" / "notes.txt").write_text("notes")
    return folder


def test_unreadable_photos_are_listed_and_counted(tmp_path, caplog):
    output = make(tmp_path / "data", photos=str(spoil(draw_all(tmp_path / "photos", 4))))
    unreadable = dict(table(output, "unreadable").to_numpy().tolist())
    assert unreadable.pop("tulip/notes.txt") == "no photo by its name's ending"
    assert list(unreadable) == ["iris/text.jpg", "rose/cut.jpg", "rose/empty.png", "tulip/gone.jpg"]
    assert unreadable["iris/text.jpg"] == "no picture that Pillow can read"
    assert "truncated" in unreadable["rose/cut.jpg"]
    assert unreadable["tulip/gone.jpg"] == "No such file or directory"
    assert sum(read(output, split).size for split in records.SPLITS) == len(table(output, "photos"))
    assert len(table(output, "photos")) == 12
    assert "4 of 16 photos cannot be read and are left out" in caplog.text
    assert "files that are no photos by their names' endings: 1 .txt" in caplog.text
    conversion = json.loads((output / "conversion.json").read_text())
    assert (conversion["photos"], conversion["unreadable"]) == (12, 4)


def test_strict_writes_nothing_if_a_photo_cannot_be_read(tmp_path):
    photos = spoil(draw_all(tmp_path / "photos", 4))
    with pytest.raises(
        RequestError, match=r"(?s)4 of 16 .*--strict.*\n  rose/cut.jpg: .*truncated"
    ):
        make(tmp_path / "data", photos=str(photos), strict=True)
    assert os.listdir(tmp_path) == ["photos"]


def test_no_photo_that_can_be_read(tmp_path):
    for number in range(12):
        path = tmp_path / "photos" / "rose" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no picture")
    with pytest.raises(RequestError, match=r"(?s)12 of 12 photos cannot be read.* and 2 more"):
        make(tmp_path / "data", photos=str(tmp_path / "photos"))
    assert os.listdir(tmp_path) == ["photos"]


def test_shards_of_unreadable_photos_are_not_there(tmp_path):
    photos = tmp_path / "photos"
    for number in range(12):
        draw(photos / "rose" / f"{number:02d}.jpg", 90, number)
        if number not in (4, 7):
            (photos / "rose" / f"{number:02d}.jpg").write_text("no picture")
    output = make(tmp_path / "data", photos=str(photos), shards=12, sizes="16", val_fraction=0.0,
                  test_fraction=0.0)  # fmt: skip
    names = sorted(os.listdir(output / "tfrecords-jpeg-16x16" / "train"))
    assert names == ["00-16x16-1.tfrec", "01-16x16-1.tfrec"]


def test_copies_stay_together_and_are_reported(tmp_path, caplog):
    photos = draw_all(tmp_path / "photos", 10)
    for number in range(10):
        copy = photos / "iris" / f"copy-{number}.jpg"
        copy.write_bytes((photos / "iris" / f"{number}.jpg").read_bytes())
    (photos / "rose" / "wrong.jpg").write_bytes((photos / "tulip" / "3.jpg").read_bytes())
    output = make(tmp_path / "data", photos=str(photos), sizes="16")
    table_of_photos = table(output, "photos").set_index("path")
    copies = table_of_photos[table_of_photos["same_as"] != ""]
    assert len(copies) == 11
    first = table_of_photos.loc[copies["same_as"]]
    assert copies["split"].tolist() == first["split"].tolist()
    assert set(copies["split"]) == {"train", "val", "test"}
    assert "byte for byte another's copy: 11" in caplog.text
    assert "of these copies 1 are in another class" in caplog.text
    assert "another split" not in caplog.text


def test_what_training_would_miss_is_said(tmp_path, caplog):
    photos = tmp_path / "photos"
    for number in range(3):
        draw(photos / "train" / "rose" / f"{number}.jpg", 90, number)
    draw(photos / "val" / "iris" / "1.jpg", 90, 7)
    (photos / "val" / "rose").mkdir()
    (photos / "val" / "tulip").mkdir()
    copied = (photos / "train" / "rose" / "1.jpg").read_bytes()
    (photos / "val" / "rose" / "copy.jpg").write_bytes(copied)
    make(tmp_path / "data", photos=str(photos))
    assert "without training photos: iris" in caplog.text
    assert "folders without photos, which are no classes: val/tulip" in caplog.text
    assert "no photos for test/" in caplog.text
    assert "1 were put in another split than the first" in caplog.text


def test_enlarged_photos_are_counted(tmp_path):
    photos = tmp_path / "photos"
    for number, size in enumerate([(16, 60), (15, 60), (60, 24), (10, 10)]):
        draw(photos / "rose" / f"{number}.png", 90, number, size)
    counted = {}
    for crop in ("center", "pad"):
        output = make(tmp_path / crop, photos=str(photos), crop=crop)
        summary = table(output, "summary")
        counted[crop] = summary.groupby("size")["enlarged"].sum().tolist()
    assert counted == {"center": [2, 3], "pad": [1, 1]}


def test_only_a_few_photos_are_held_at_a_time(photos, tmp_path, monkeypatch):
    render, serialize = convert.photo_pixels.render, records.serialize_example
    begun, written, most = [], [], [0]
    monkeypatch.setattr(
        convert.photo_pixels,
        "render",
        lambda path, style: begun.append(path) or render(path, style),
    )

    def count(*arguments):
        time.sleep(0.01)  # writing is what the others wait for
        most[0] = max(most[0], len(begun) - len(written))
        written.append(1)
        return serialize(*arguments)

    monkeypatch.setattr(records, "serialize_example", count)
    make(tmp_path / "data", photos=str(photos), sizes="16", threads=1)
    assert len(begun) == len(written) == 30
    assert 2 <= most[0] <= 6  # of a thread: four that wait, one in work, one being written


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"photos": ""}, "--photos=FOLDER or --csv=FILE is needed"),
        ({"output_dir": ""}, "--output_dir=FOLDER is needed"),
        ({"output_dir": "gs://bucket/data"}, "--output_dir=gs://bucket/data: must be local"),
        ({"photos": "gs://bucket"}, "--photos=gs://bucket: must be local"),
        ({"sizes": "192,big"}, "--sizes=192,big: expected sides in pixels"),
        ({"sizes": "0"}, "--sizes=0"),
        ({"sizes": ""}, "--sizes="),
        ({"val_fraction": -0.1}, "--val_fraction=-0.1: must be at least 0 and below 1"),
        ({"test_fraction": float("nan")}, "--test_fraction=nan: must be a finite number"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"quality": 0}, "--quality=0: must be at least 1 and at most 100"),
        ({"shards": 0}, "--shards=0: must be at least 1"),
        ({"threads": -1}, "--threads=-1: must not be negative"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, message):
    with pytest.raises(RequestError, match=message):
        make(tmp_path / "data", **{"photos": str(tmp_path), "output_dir": "data", **flags})
    assert os.listdir(tmp_path) == []


def test_output_within_the_photos_is_refused(tmp_path):
    for output in (tmp_path, tmp_path / "data"):
        with pytest.raises(RequestError, match="lies within --photos"):
            make(output, photos=str(tmp_path))


def test_a_disk_that_refuses_is_named(photos, tmp_path, monkeypatch):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(records, "serialize_example", fail)
    with pytest.raises(RunError, match=r"data: cannot be written \(No space left on device"):
        make(tmp_path / "data", photos=str(photos))
    assert os.listdir(tmp_path) == []


def start_script(*flags):
    script = pathlib.Path(convert.__file__).parents[2] / "scripts" / "make_tfrecords.py"
    return subprocess.Popen(
        [sys.executable, str(script), *flags],
        env={**os.environ, "PYTHONPATH": str(script.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_script_leaves_no_data_set_and_the_same_command_makes_it(tmp_path):
    photos, output, part = tmp_path / "photos", tmp_path / "data", tmp_path / "data.part"
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    for number in range(24):
        path = photos / "rose" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise + np.uint8(number)).save(path, compress_level=0)
    (photos / "rose" / "text.jpg").write_text("no picture")
    flags = [f"--photos={photos}", f"--output_dir={output}", "--sizes=500,16", "--threads=1"]
    process = start_script(*flags)
    deadline = time.monotonic() + 120
    while not list(part.glob("*/train/*.tfrec")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    assert list(part.glob("*/train/*.tfrec"))
    assert not (part / "conversion.json").exists()  # it was in the middle of it

    process = start_script(*flags)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "1 of 25 photos cannot be read" in err
    # Of the 25 files 17, 4 and 4 by the fractions, of which one for training cannot be read.
    assert out.splitlines()[:2] == ["class  train  val  test", " rose     16    4     4"]
    assert sorted(os.listdir(tmp_path)) == ["data", "photos"]
    assert sum(read(output, split, num_classes=1).size for split in records.SPLITS) == 24


def test_test_photos_have_labels_if_that_is_asked_for(photos, tmp_path):
    output = make(tmp_path / "data", photos=str(photos), sizes="16", test_labels=True)
    folder = data_folder(str(output), 16)
    split = read_split(folder, "test", 3, has_labels=True)
    names = [("iris", "rose", "tulip")[label] for label in split.labels]
    assert names == [example_id.split("-")[0] for example_id in split.ids]
    assert read_split(folder, "test", 3).labels is None  # nobody is given them by the way
    hidden = make(tmp_path / "hidden", photos=str(photos), sizes="16")
    with pytest.raises(RequestError, match="its records have no labels"):
        read_split(data_folder(str(hidden), 16), "test", 3, has_labels=True)


def test_given_ids_stand_in_records_and_tables(tmp_path):
    photos = draw_all(tmp_path / "photos", 4)
    for name in ("0000f", "7"):
        draw(photos / "test" / f"{name}.jpg", 50, int(name[0]))
    output = make(tmp_path / "data", photos=str(photos), sizes="16")
    assert sorted(read(output, "test").ids) == ["0000f", "7"]
    again = make(tmp_path / "again", csv=str(output / "photos.csv"), photos=str(photos), sizes="16")
    assert sorted(read(again, "test").ids) == ["0000f", "7"]
