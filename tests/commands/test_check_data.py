"""Bad data as a person meets it: `scripts/check_data.py`, and whole runs in both modes."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from flowers_tpu.options import Config
from flowers_tpu.runs import feed, recipe
from flowers_tpu.runs.folder import RunDirectory
from flowers_tpu.system.errors import RequestError, RunError
from tests.photos import write_data_set

SIZE = 32


def check_data(folder, *flags):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/check_data.py",
            f"--data_dir={folder}",
            "--image_size=32",
            *flags,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def shard(folder, split="train", number=0):
    return sorted((folder / split).glob("*.tfrec"))[number]


def rewrite(path, change):
    """Changes the examples of a shard in place: `change` gets and gives their list."""
    examples = [
        tf.train.Example.FromString(data.numpy()) for data in tf.data.TFRecordDataset(str(path))
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in change(examples):
            writer.write(example.SerializeToString())


def photo_of(example):
    return example.features.feature["image"].bytes_list.value


def id_of(example):
    return example.features.feature["id"].bytes_list.value


def cut_photo(number):
    def change(examples):
        photo = photo_of(examples[number])
        photo[0] = photo[0][: photo[0].index(b"\xff\xda") + 40]
        return examples

    return change


# check_data


def test_a_sound_data_set(tmp_path):
    write_data_set(tmp_path)
    code, out, err = check_data(tmp_path)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[:4] == [
        ["split", "shards", "records", "bad", "duplicates"],
        ["train", "2", "24", "0", "0"],
        ["val", "2", "9", "0", "0"],
        ["test", "2", "5", "0", "0"],
    ]
    assert "nothing is wrong" in out


def test_everything_that_is_wrong_is_listed(tmp_path, capsys):
    write_data_set(tmp_path)
    first, second = shard(tmp_path), shard(tmp_path, number=1)
    stolen = []

    def damage(examples):
        cut_photo(2)(examples)
        examples[3].features.feature["class"].int64_list.value[0] = 3
        id_of(examples[4])[0] = id_of(examples[5])[0]
        photo_of(examples[6])[0] = photo_of(examples[7])[0]
        stolen.extend([photo_of(examples[8])[0], id_of(examples[9])[0]])
        return examples

    def repeat(examples):
        photo_of(examples[0])[0], id_of(examples[1])[0] = stolen
        return examples

    rewrite(first, damage)
    second.write_bytes(second.read_bytes()[:-1])
    val = shard(tmp_path, "val")
    rewrite(val, repeat)
    for path in (tmp_path / "test").iterdir():
        path.unlink()
    (tmp_path / "test").rmdir()

    with pytest.raises(RequestError, match="problems, listed above: 8"):
        train.check_data(Config(data_dir=str(tmp_path), image_size=SIZE))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    of_12 = f"{first}: record %d of 12 (counted from 0), id train-%04d: "
    assert lines[0].startswith(of_12 % (2, 2) + "a JPEG whose pixels cannot be decoded")
    assert lines[1].startswith(of_12 % (3, 3) + "label 3, expected 0 to 2")
    assert lines[2].startswith(f"{second}: record 11 of 12 (counted from 0): cut short")
    assert lines[3] == of_12 % (5, 5) + (
        f"its id is that of record 4 of 12 (counted from 0), id train-0005, of {first}"
    )
    assert lines[4] == of_12 % (7, 7) + (
        f"its photo is byte for byte that of record 6 of 12 (counted from 0), id train-0006, "
        f"of {first}"
    )
    assert lines[5].startswith(f"{val}: record 0 of 4 (counted from 0), id val-0000: its photo is ")
    assert f"record 8 of 12 (counted from 0), id train-0008, of {first}" in lines[5]
    assert lines[6].startswith(f"{val}: record 1 of 4 (counted from 0), id train-0009: its id is ")
    assert "test: no such folder" in lines[7]
    assert [line.split() for line in lines[9:]] == [
        ["train", "2", "24", "3", "2"],
        ["val", "2", "9", "0", "2"],
        ["test", "0", "0", "0", "0"],
    ]


def test_the_script_exits_with_2(tmp_path):
    write_data_set(tmp_path)
    rewrite(shard(tmp_path, "val"), cut_photo(1))
    code, out, err = check_data(tmp_path)
    assert code == 2
    assert "id val-0001: a JPEG whose pixels cannot be decoded" in out
    assert "problems, listed above: 1" in err


# Runs


def make_config(data, run_dir, **changes):
    return Config(
        data_dir=str(data),
        run_dir=str(run_dir),
        image_size=SIZE,
        replicas=2,
        backbone="small_cnn",
        weights="none",
        batch_size_per_replica=4,
        warmup_epochs=1,
        epochs=1,
        crop_min=1.0,
        report=False,
        **changes,
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_photo_that_cannot_be_decoded_is_named_when_it_is_met(tmp_path, split):
    data = write_data_set(tmp_path / "data")
    path = shard(data, split, 1)
    rewrite(path, cut_photo(1))
    number = {"train": 13, "val": 5, "test": 3}[split]
    with pytest.raises(RunError) as caught:
        train.train(make_config(data, tmp_path / "run", shuffle_buffer=1))
    assert f"{path}: record 1 of " in str(caught.value)
    assert f"id {split}-{number:04d}: a JPEG whose pixels cannot be decoded" in str(caught.value)
    assert not (tmp_path / "run" / "scores.json").exists()


def test_an_error_of_another_kind_is_left_as_it_is(tmp_path, monkeypatch):
    data = write_data_set(tmp_path / "data")

    def fail(*_):
        raise tf.errors.InvalidArgumentError(None, None, "of another kind")

    monkeypatch.setattr(experiment, "predict_test", fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"):
        train.train(make_config(data, tmp_path / "run"))


WRITTEN = ("history.csv", "submission.csv", "predictions_train.csv", "predictions_val.csv")


def without_bad(data):
    """Writes what `damage` leaves in use as a data set of its own."""
    for path in list(data.glob("*/*.tfrec")):
        rewrite(path, lambda examples: [e for e in examples if not id_of(e)[0].endswith(b"3")])
        count = len(list(tf.data.TFRecordDataset(str(path))))
        path.rename(path.with_name(f"{path.name[:8]}-{count}.tfrec"))
    (data / "sample_submission.csv").unlink()


def damage(data):
    """Damages every photo whose id ends with 3: the pixels, so that a header tells nothing."""

    def change(examples):
        for number, example in enumerate(examples):
            if id_of(example)[0].endswith(b"3"):
                cut_photo(number)(examples)
        return examples

    for path in data.glob("*/*.tfrec"):
        rewrite(path, change)


def test_a_run_that_skips_is_the_run_of_the_data_without_bad_records(
    tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setattr(RunDirectory, "lock", lambda self: None)  # several commands, one process
    bad, without = (write_data_set(tmp_path / name) for name in ("bad", "without"))
    damage(bad)
    without_bad(without)
    config = make_config(bad, tmp_path / "skipping", bad_records="skip")
    train.train(config)
    out = capsys.readouterr().out
    for line in ("train: 3 bad", "val: 1 bad", "test: 1 bad", "lacks the 1 photos left out"):
        assert line in out
    assert "without the records left out the submission is incomplete" in caplog.text
    train.train(make_config(without, tmp_path / "plain"))
    for name in WRITTEN:
        skipping, plain = ((tmp_path / run / name).read_bytes() for run in ("skipping", "plain"))
        assert skipping == plain, name
    scores, plain_scores = (
        json.loads((tmp_path / run / "scores.json").read_text()) for run in ("skipping", "plain")
    )
    assert [scores[split].pop("left_out") for split in ("train", "val")] == [3, 1]
    assert scores == plain_scores
    assert not (tmp_path / "plain" / "bad_records.csv").exists()

    path = tmp_path / "skipping" / "bad_records.csv"
    table = pd.read_csv(path)
    assert table["id"].tolist() == [
        *("train-0003", "train-0013", "train-0023", "val-0003", "test-0003")
    ]
    written = path.read_text()
    path.unlink()
    train.evaluate(config)
    assert path.read_text() == "".join(written.splitlines(keepends=True)[:5])
    assert json.loads((tmp_path / "skipping" / "scores.json").read_text())["val"]["left_out"] == 1
    train.predict(config)
    assert path.read_text() == written


def test_a_run_is_not_continued_with_other_records_left_out(tmp_path, monkeypatch):
    data = write_data_set(tmp_path / "data")
    config = make_config(data, tmp_path / "run", bad_records="skip")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "_fit", stop)
        train.train(config)
    assert (tmp_path / "run" / "bad_records.csv").read_text() == "split,file,record,id,problem\n"
    rewrite(shard(data), cut_photo(0))
    with pytest.raises(RequestError, match=r"bad_records\.csv: lists other records"):
        train.train(config)


def test_ids_of_a_step_are_those_it_sees(tmp_path, make_strategy):
    """What names the photos of a step counts the records in use, as the step does."""
    data = write_data_set(tmp_path / "data")
    rewrite(shard(data), cut_photo(5))
    config = make_config(data, tmp_path / "run", bad_records="skip", global_batch_size=8)
    split = read_split(str(data), "train", SIZE, 3, bad_records="skip")
    label_of = dict(zip(split.ids, split.labels, strict=True))
    plan = recipe.make_plan(config, recipe.Data("", ("a", "b", "c"), {"train": split}))
    train_source, _ = feed.train_and_val_sources(config, split, split)
    batches = iter(feed.train_batches(config, make_strategy(1), train_source, plan, 0))
    for step in range(4):
        ids = feed.ids_of_step(config, split, step)
        labels = np.concatenate([next(batches)["label"].numpy() for _ in range(2)])
        assert [label_of[example_id] for example_id in ids] == labels.tolist()
