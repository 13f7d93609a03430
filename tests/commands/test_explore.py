"""`scripts/explore.py`: what is written and said, on whole and on incomplete data sets."""

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowers_tpu.commands import explore as command
from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from flowers_tpu.reports import style
from flowers_tpu.reports.options import ExploreOptions
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RequestError, RunError
from tests.calling import call
from tests.photos import jpeg, photo, write_data_set, write_split

# What slow work writes where there is no terminal, like "drawing: 3 of 7 pictures (42 %), …".
PROGRESS = re.compile(r"[\w /]+: [\d,]+ of [\d,]+ \w+ \(\d+ %\)")
PICTURES = {
    "labels.png",
    "sample_train.png",
    "sample_val.png",
    "sample_test.png",
    "augmentation.png",
    "learning_rate.png",
    "jpeg_sizes.png",
}


ROW = re.compile(r"^ +(\d)  (class \d) +(\d+) +(\d+)", re.MULTILINE)  # of the table of classes


def explore(data, output, *, class_="", show=False, **flags):
    spec = Spec.of(data_dir=str(data), image_size=32, **flags)
    command.explore(spec, ExploreOptions(str(output), class_, show))
    return output


def pictures(output):
    return {path.name for path in (output / "plots").iterdir()}


def summary(output):
    return json.loads((output / "summary.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "flowers")


def test_everything_at_once(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(style, "show", lambda pictures: False)  # as without a display
    code = call(
        "explore",
        f"--data_dir={data}",
        f"--output_dir={tmp_path / 'new' / 'folder'}",
        "--image_size=32",
        "--batch_size_per_replica=8",
        "--warmup_epochs=1",
        "--show",
    )
    out, err = capsys.readouterr()
    assert (code, [line for line in err.splitlines() if not PROGRESS.match(line)]) == (0, [])
    output = tmp_path / "new" / "folder"
    assert pictures(output) == PICTURES
    for name in PICTURES:
        assert min(Image.open(output / "plots" / name).size) > 200
    # 3 steps an epoch; rates for a batch of 8 are half of those for 16.
    assert "schedule of warm-up: 5e-05 to 5e-05 to 5e-05" in out
    assert "schedule of fine-tuning: 1e-08 to 1.5e-05 to 1.39e-06" in out
    assert "for 24 training photos and a global batch of 8 (1 x 8, replicas x photos)" in out
    assert "no two photos are byte for byte the same" in out
    assert "no two photos show the same" in out
    assert "--show: no display here" in out

    labels = [read_split(str(data), split, 3).labels for split in ("train", "val")]
    train, val = (np.bincount(values, minlength=3) for values in labels)
    counts = pd.read_csv(output / "class_counts.csv")
    assert list(counts["class"]) == ["class 0", "class 1", "class 2"]
    assert ROW.findall(out) == [
        (str(label), f"class {label}", str(train[label]), str(val[label])) for label in range(3)
    ]
    np.testing.assert_array_equal(counts[["train", "val"]].T, [train, val])
    said = summary(output)
    assert {name: row["photos"] for name, row in said["splits"].items()} == {
        "train": 24,
        "val": 9,
        "test": 5,
    }
    distance = np.abs(train / 24 - val / 9).sum() / 2
    assert said["comparison"]["total_variation"] == pytest.approx(distance)
    assert f"total variation distance {distance:.3f}" in out
    assert said["imbalance"]["train"]["ratio"] == train.max() / train.min()
    assert said["learning_rate"]["fine-tuning"]["peak"] == pytest.approx(1.5e-5)
    assert said["learning_rate"]["fine-tuning"]["steps"] == 60
    assert said["missing_splits"] == []
    sizes = pd.read_csv(output / "jpeg_sizes.csv").set_index("split")
    assert said["jpeg_bytes"]["val"]["total"] == sizes.loc["val", "total"]
    pixels = said["pixels_of_train"]
    np.testing.assert_allclose(np.array(pixels["mean"]) * 255, pixels["mean_0_255"])


def test_what_is_missing_and_what_is_bad_is_said(tmp_path, capsys):
    data = tmp_path / "data"
    write_split(data, "train", 20)
    (data / "classes.txt").write_text("rose\ntulip\niris\n")
    serialized = [
        records.serialize_example("whole", jpeg(photo(np.random.default_rng(0), 32)), 0),
        # A sound header, and then nothing: only decoding tells.
        records.serialize_example("cut", jpeg(photo(np.random.default_rng(1), 32))[:640], 0),
    ]
    records.write_shards(str(tmp_path / "more"), serialized, 32, 1)
    (tmp_path / "more" / "00-32x32-2.tfrec").rename(data / "train" / "99-32x32-2.tfrec")
    with pytest.raises(RunError, match=r"99-32x32-2\.tfrec: record 1 of 2 .*, id cut"):
        explore(data, tmp_path / "out")
    output = explore(data, tmp_path / "out", bad_records="skip", batch_size_per_replica=22)
    out = capsys.readouterr().out
    assert "val, test: no such folder" in out
    assert "21 photos of 32 px in 3 shards, 1 bad left out" in out
    assert "21 photos, fewer than the global batch of 22" in out
    lacking = {"sample_val.png", "sample_test.png", "learning_rate.png"}
    assert pictures(output) == PICTURES - lacking
    said = summary(output)
    assert said["splits"]["train"]["left_out"] == 1
    assert said["missing_splits"] == ["val", "test"]
    assert "comparison" not in said


def test_photos_without_labels_alone(tmp_path):
    write_split(tmp_path / "data", "test", 5)
    output = explore(tmp_path / "data", tmp_path / "out")
    assert pictures(output) == {"sample_test.png", "jpeg_sizes.png"}


def test_an_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(RequestError, match="train: no such folder"):
        explore(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_photos_are_listed_and_shown(tmp_path, capsys):
    data, output = tmp_path / "data", tmp_path / "out"
    write_data_set(data)
    repeated = jpeg(photo(np.random.default_rng(7), 32))
    for split, label in (("train", 1), ("val", 2)):
        serialized = [records.serialize_example(f"{split}-again", repeated, label)]
        records.write_shards(str(tmp_path / split), serialized, 32, 1)
        (tmp_path / split / "00-32x32-1.tfrec").rename(data / split / "99-32x32-1.tfrec")
    explore(data, output)
    table = pd.read_csv(output / "duplicates.csv")
    assert list(table["id"]) == ["train-again", "val-again"]
    assert list(table["split"]) == ["train", "val"]
    assert summary(output)["duplicates"] == {
        "groups": 1,
        "photos": 2,
        "across_splits": 1,
        "contradicting_labels": 1,
    }
    assert "2 photos in 1 groups of byte-identical ones" in capsys.readouterr().out
    copies = pd.read_csv(output / "near_copies.csv")
    assert copies["id"].tolist() == ["train-again", "val-again"]
    assert copies["correlation"].tolist() == pytest.approx([1, 1])
    assert pictures(output) == PICTURES | {"duplicates.png", "near_copies.png"}

    # Explored again without them: nothing old of ours stays, nothing of others goes.
    for split in ("train", "val"):
        (data / split / "99-32x32-1.tfrec").unlink()
    (output / "plots" / "mine.png").write_text("mine")
    (output / "notes.txt").write_text("mine")
    explore(data, output)
    assert pictures(output) == PICTURES | {"mine.png"}
    assert (output / "notes.txt").read_text() == "mine"
    assert pd.read_csv(output / "duplicates.csv").empty


def test_one_class_alone(data, tmp_path):
    explore(data, tmp_path, class_="CLASS 2")
    assert pictures(tmp_path) == {"class_002_class_2.png"}
    assert summary(tmp_path) == {"data_dir": str(data), "image_size": 32}


def test_classes_join_an_exploration_which_replaces_them(data, tmp_path):
    explore(data, tmp_path)
    said = summary(tmp_path)
    explore(data, tmp_path, class_="1")
    explore(data, tmp_path, class_="2")
    drawn = {"class_001_class_1.png", "class_002_class_2.png"}
    assert pictures(tmp_path) == PICTURES | drawn and summary(tmp_path) == said
    (tmp_path / "plots" / "class_mine.png").write_text("mine")
    explore(data, tmp_path)
    assert pictures(tmp_path) == PICTURES | {"class_mine.png"}


def test_an_exploration_without_labels_leaves_no_counts_of_before(tmp_path):
    data, output = write_data_set(tmp_path / "data"), tmp_path / "out"
    explore(data, output)
    assert (output / "class_counts.csv").exists()
    for split in ("train", "val"):
        shutil.rmtree(data / split)
    explore(data, output)
    assert not (output / "class_counts.csv").exists()
    assert pictures(output) == {"sample_test.png", "jpeg_sizes.png"}


def test_an_exploration_that_was_killed_is_begun_anew(data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "_explore_photos", stop)
        explore(data, tmp_path)
    explore(data, tmp_path)
    assert pictures(tmp_path) == PICTURES


def test_the_rates_of_a_recipe_without_its_data(tmp_path, capsys):
    """12,753 photos in batches of 128: 99 steps. 3e-5 for 16 photos is 2.4e-4 for 128."""
    flags = {"global_batch_size": 128, "replicas": 8, "warmup_epochs": 0, "epochs": 5}
    with pytest.raises(RequestError, match=r"nowhere: no such folder \(without data, --data_dir= "):
        explore(tmp_path / "nowhere", tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()
    output = explore("", tmp_path / "out", **flags)
    assert pictures(output) == {"learning_rate.png"}
    said = summary(output)
    assert said["learning_rate_for"] == {
        "training_photos": 12753,
        "global_batch_size": 128,
        "replicas": 8,
        "assumed": True,
    }
    assert said["learning_rate"]["fine-tuning"]["steps"] == 5 * 99
    assert said["learning_rate"]["fine-tuning"]["peak"] == pytest.approx(2.4e-4)
    out = capsys.readouterr().out
    assert "for 12,753 assumed training photos and a global batch of 128 (8 x 16" in out
    with pytest.raises(RequestError, match="--class=1: needs the photos"):
        explore("", tmp_path / "out", class_="1")


def test_a_class_without_photos(data, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nwater lily\n")
    with pytest.raises(RequestError, match="--class=water lily: there is no photo"):
        explore(data, tmp_path / "out", class_="Water Lily", classes=str(names))
    assert not (tmp_path / "out").exists()


def test_an_unknown_class(data, tmp_path):
    with pytest.raises(RequestError, match=r"--class=clas 1: .*'class 1'"):
        explore(data, tmp_path, class_="clas 1")


def test_folders_that_cannot_be_used(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"--output_dir=.*file: is a file"):
        explore(data, tmp_path / "file")
    with pytest.raises(RequestError, match=r"--output_dir=.*cannot be made"):
        explore(data, tmp_path / "file" / "below")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"--output_dir=.*run: holds a run"):
        explore(data, tmp_path / "run")
    (tmp_path / "thesis").mkdir()
    for name, content in (("summary.json", "[]"), ("summary.json", "{}"), ("notes.txt", "mine")):
        (tmp_path / "thesis" / name).write_text(content)
        with pytest.raises(RequestError, match=r"--output_dir=.*thesis: holds files but no expl"):
            explore(data, tmp_path / "thesis")
    assert sorted(os.listdir(tmp_path / "thesis")) == ["notes.txt", "summary.json"]


def test_the_folder_is_named_after_the_data(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explore(f"{data}/", "", class_="0")
    output = tmp_path / "runs" / "exploration-flowers-32px"
    assert pictures(output) == {"class_000_class_0.png"}
    other = write_data_set(tmp_path / "other" / "flowers")
    with pytest.raises(RequestError, match=rf"other data \(--data_dir={data} --image_size=32\)"):
        explore(other, "", class_="1")
    explore(data, "", class_="1")
    assert pictures(output) == {"class_000_class_0.png", "class_001_class_1.png"}
