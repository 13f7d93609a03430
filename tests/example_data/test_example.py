import collections
import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.classes import FLOWERS, read_classes
from flowers_tpu.data.shards import data_folder
from flowers_tpu.data.splits import read_split
from flowers_tpu.example_data import example
from flowers_tpu.example_data.drawing import draw_photo
from flowers_tpu.example_data.photo import Photo, draw_jpeg
from flowers_tpu.example_data.species import SPECIES
from flowers_tpu.system import folders
from flowers_tpu.system.errors import RequestError

SIZE = 24
COUNTS = {"train": 2, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("example") / "data"
    example.make_example_data(str(path), SIZE, seed=3, photos_per_class=COUNTS, processes=1)
    return path


@pytest.fixture
def fast_drawing(monkeypatch):
    """Photos without pixels, for tests of what is around the drawing."""
    monkeypatch.setattr(example, "_draw_all", lambda photos, _: dict.fromkeys(photos, b"jpeg"))


def read_records(data_dir, split):
    shards = sorted((data_dir / split).iterdir())
    return [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in tf.data.TFRecordDataset([str(shard) for shard in shards])
    ]


def ids_of(features):
    return [feature["id"].bytes_list.value[0].decode() for feature in features]


def labels_of(features):
    return [feature["class"].int64_list.value[0] for feature in features]


def photo_of(feature):
    return tf.io.decode_jpeg(feature["image"].bytes_list.value[0]).numpy()


def bytes_of(folder):
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def run_python(*arguments, **options):
    root = pathlib.Path(example.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **options)


def test_layout_is_the_competitions(data_dir):
    assert sorted(os.listdir(data_dir)) == [
        *("classes.txt", "drawn_flowers.json", "sample_submission.csv", "test", "train", "val")
    ]
    expected = {"train": [13] * 16, "val": [26] * 4, "test": [26] * 4}  # 208, 104, 104 photos
    for split, counts in expected.items():
        names = sorted(os.listdir(data_dir / split))
        assert names == [f"{i:02d}-24x24-{count}.tfrec" for i, count in enumerate(counts)]
        assert len(read_records(data_dir, split)) == sum(counts)
    assert read_classes(str(data_dir / "classes.txt")) == FLOWERS


def test_package_reads_it(data_dir):
    for split, count in COUNTS.items():
        assert read_split(str(data_dir), split, 104).size == 104 * count


def test_every_class_has_its_photos_in_mixed_order(data_dir):
    for split in ("train", "val"):
        labels = labels_of(read_records(data_dir, split))
        assert collections.Counter(labels) == dict.fromkeys(range(104), COUNTS[split])
        # In a random order about half of the neighbours descend; sorted by class, none.
        assert np.mean(np.diff(labels) < 0) > 0.3
    assert not any("class" in feature for feature in read_records(data_dir, "test"))


def test_ids_are_distinct_over_splits_and_look_like_the_competitions(data_dir):
    ids = [i for split in COUNTS for i in ids_of(read_records(data_dir, split))]
    assert len(set(ids)) == len(ids) == 416
    assert all(re.fullmatch("[0-9a-f]{9}", i) for i in ids)


def test_ids_are_distinct_in_the_full_data_and_differ_between_seeds():
    def ids(seed):
        photos = [
            photo
            for split, count in enumerate((400, 100, 50))
            for photo in example._shuffled_photos(split, count, seed, SIZE)
        ]
        return {example._photo_id(photo) for photo in photos}

    assert len(ids(0)) == 104 * 550
    assert len(ids(0) & ids(1)) < 500  # about 48 of two times 57,200 meet by chance


def test_sample_submission_lists_the_test_split(data_dir):
    with open(data_dir / "sample_submission.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "label"]
    assert rows == [[i, "0"] for i in ids_of(read_records(data_dir, "test"))]


def test_photos_are_rgb_of_the_size_and_not_blank(data_dir):
    for split in COUNTS:
        for feature in read_records(data_dir, split):
            photo = photo_of(feature)
            assert photo.shape == (SIZE, SIZE, 3)
            assert photo.std() > 8


def test_bytes_are_the_same_from_more_processes_and_from_an_unguarded_script(data_dir, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from flowers_tpu.example_data import example\n"
        "print('started', flush=True)\n"
        f"example.make_example_data('other', {SIZE}, 3, {COUNTS}, processes=2)\n"
    )
    process = run_python(str(script), cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.communicate(timeout=60)[0] == "started\n"
    assert process.returncode == 0
    assert bytes_of(tmp_path / "other") == bytes_of(data_dir)


def test_photo_depends_on_seed_split_class_and_number_alone(data_dir, tmp_path):
    more = {"train": 3, "val": 1, "test": 1}
    example.make_example_data(str(tmp_path / "more"), SIZE, 3, more, processes=1)
    images = {
        folder: {
            feature["id"].bytes_list.value[0]: feature["image"].bytes_list.value[0]
            for split in COUNTS
            for feature in read_records(folder, split)
        }
        for folder in (data_dir, tmp_path / "more")
    }
    few, many = images.values()
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many) == 520
    first = Photo(seed=3, split=0, label=0, number=0, image_size=SIZE)
    assert draw_jpeg(first) != draw_jpeg(first._replace(seed=4))


def test_every_class_has_its_own_species_and_shares_its_colour():
    assert tuple(SPECIES) == FLOWERS
    assert len(set(SPECIES.values())) == 104
    classes_by_colour = collections.Counter(species.colour for species in SPECIES.values())
    # So few have a colour alone: not more can be told by it.
    assert sum(count == 1 for count in classes_by_colour.values()) <= 5


def test_mean_colour_does_not_give_the_classes_away():
    def mean_colours(numbers):
        photos = [
            draw_photo(species, SIZE, np.random.default_rng([label, number]))
            for label, species in enumerate(SPECIES.values())
            for number in numbers
        ]
        return np.mean(photos, axis=(1, 2)).reshape(104, -1, 3)

    centroids = mean_colours(range(3)).mean(1)
    colours = mean_colours([3])
    nearest = np.argmin(np.linalg.norm(colours - centroids, axis=-1), axis=1)
    assert np.mean(nearest == np.arange(104)) < 0.15


def test_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="already exists"):
        example.make_example_data(str(tmp_path / "data"), SIZE, photos_per_class=COUNTS)
    assert bytes_of(tmp_path) == {"data/mine.txt": b"mine"}


def test_folder_that_cannot_be_written_is_named(tmp_path, fast_drawing):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/data\.part: cannot be made"):
        example.make_example_data(str(tmp_path / "file" / "data"), SIZE, photos_per_class=COUNTS)


def test_failure_leaves_nothing(tmp_path, fast_drawing, monkeypatch):
    write_shards = records.write_shards

    def fail_at_test(directory, *arguments):
        if directory.endswith("test"):
            raise KeyboardInterrupt
        write_shards(directory, *arguments)

    monkeypatch.setattr(records, "write_shards", fail_at_test)
    with pytest.raises(KeyboardInterrupt):
        example.make_example_data(str(tmp_path / "data"), SIZE, photos_per_class=COUNTS)
    assert os.listdir(tmp_path) == []


def test_killed_run_leaves_no_data_folder_and_no_processes(tmp_path):
    code = "from flowers_tpu.example_data import example; example.make_example_data('data', 512)"
    process = run_python("-c", code, cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (tmp_path / "data.part").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)  # its processes are drawing
    process.send_signal(signal.SIGKILL)
    # The processes hold the other ends of the pipe: it closes when the last of them is gone.
    process.communicate(timeout=10)
    assert os.listdir(tmp_path) == ["data.part"]


def test_drawing_processes_need_not_wait_for_tensorflow():
    """They import the modules of the functions that they are sent."""
    modules = {example.draw_jpeg.__module__, example.end_with_parent.__module__}
    code = f"import sys, {', '.join(modules)}; sys.exit('tensorflow' in sys.modules)"
    assert run_python("-c", code).wait(timeout=30) == 0


def test_default_folder_is_made_once(tmp_path, fast_drawing, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = example.example_data_dir(SIZE)
    assert folder == f"{tmp_path}/flowers_tpu/example-v1/tfrecords-jpeg-24x24"
    assert data_folder(os.path.dirname(folder), SIZE) == folder
    counts = [len(read_records(pathlib.Path(folder), split)) for split in COUNTS]
    assert counts == [4160, 1040, 520]
    monkeypatch.delattr(example, "make_example_data")
    assert example.example_data_dir(SIZE) == folder


def test_default_folder_is_in_the_home_cache_without_xdg(tmp_path, fast_drawing, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert example.example_data_dir(SIZE).startswith(f"{tmp_path}/.cache/flowers_tpu/")


def test_of_two_that_need_it_at_once_one_draws(tmp_path, fast_drawing, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_data, flock, drawing, waiting = example._write_data, folders.fcntl.flock, [], []
    other_waits = threading.Event()
    found = []
    other = threading.Thread(target=lambda: found.append(example.example_data_dir(SIZE)))

    def heard(*arguments):
        if threading.current_thread() is other:
            other_waits.set()
        flock(*arguments)

    def draw_while_another_waits(*arguments):
        drawing.append(threading.current_thread())
        other.start()
        waiting.append(other_waits.wait(20))
        write_data(*arguments)

    monkeypatch.setattr(folders.fcntl, "flock", heard)
    monkeypatch.setattr(example, "_write_data", draw_while_another_waits)
    folder = example.example_data_dir(SIZE)
    other.join(20)
    assert drawing == [threading.main_thread()] and waiting == [True]
    assert found == [folder]
    assert os.listdir(os.path.dirname(folder)) == [os.path.basename(folder)]


def test_one_that_no_lock_keeps_away_may_be_faster(tmp_path, fast_drawing, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "flowers_tpu" / "example-v1" / "tfrecords-jpeg-24x24"
    write_data = example._write_data

    def win_meanwhile(*arguments):
        write_data(*arguments)
        folder.mkdir()
        (folder / "winner.txt").write_text("winner")

    monkeypatch.setattr(example, "_write_data", win_meanwhile)
    assert example.example_data_dir(SIZE) == str(folder)
    assert bytes_of(folder.parent) == {"tfrecords-jpeg-24x24/winner.txt": b"winner"}
