"""Bad data as a person meets it: `scripts/check_data.py`, and whole runs in both modes."""

import json

import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import evaluate, predict, train
from flowers_tpu.data.splits import read_split
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.options import EvaluateOptions, PredictOptions
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.system.facts import Facts
from tests.calling import call
from tests.photos import jpeg, write_data_set

SIZE = 32


@pytest.fixture
def check_data(capsys):
    """Checks a data set; gives the exit code and what was written."""

    def check(folder, *flags):
        code = call("check_data", f"--data_dir={folder}", f"--image_size={SIZE}", *flags)
        return code, *capsys.readouterr()

    return check


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


def test_a_sound_data_set(tmp_path, check_data):
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


def test_everything_that_is_wrong_is_listed(tmp_path, check_data):
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

    code, out, err = check_data(tmp_path)
    assert (code, err) == (
        2,
        f"check_data: --data_dir: {tmp_path}: problems, listed above: 8\n",
    )
    lines = [line for line in out.splitlines() if line.strip()]
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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: (f / "sample_submission.csv").write_text("id,label\nx,0\n"), "lists 1 ids"),
        (lambda f: shard(f).unlink(), "no shard 00, though there is one 01"),
        (lambda f: (f / "val" / "02-32x32-9.tfrec.crdownload").touch(), "a download that did not"),
        (lambda f: (f / "classes.txt").unlink(), "its labels are 0 to 2"),
    ],
)
def test_what_training_would_say_is_a_problem_here(tmp_path, check_data, change, problem):
    write_data_set(tmp_path)
    change(tmp_path)
    code, out, err = check_data(tmp_path)
    assert code == 2 and problem in out and "problems, listed above: 1" in err


def mirror_a_photo(folder):
    """Validation photo 1 becomes the mirror image of training photo 2."""

    def take(examples):
        copied.append(photo_of(examples[2])[0])
        return examples

    def put(examples):
        pixels = tf.io.decode_jpeg(copied[0]).numpy()[:, ::-1]
        photo_of(examples[1])[0] = jpeg(pixels, 80)
        return examples

    copied = []
    rewrite(shard(folder), take)
    rewrite(shard(folder, "val"), put)


def test_photos_that_show_the_same_are_listed_and_drawn(tmp_path, check_data):
    write_data_set(tmp_path)
    picture = tmp_path / "copies.png"
    code, out, _ = check_data(tmp_path, "--near_copies", f"--output={picture}")
    assert code == 0 and "Near-copies: no two photos show the same." in out
    assert not picture.exists()
    mirror_a_photo(tmp_path)
    code, out, _ = check_data(tmp_path, "--near_copies", f"--output={picture}")
    assert code == 0 and "2 photos in 1 groups that show the same; 1 groups across splits" in out
    rows = [line.split() for line in out.splitlines() if line.endswith("True")]
    assert [row[:3] for row in rows] == [["1", "train", "train-0002"], ["1", "val", "val-0001"]]
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = check_data(tmp_path, f"--output={picture}")
    assert code == 2 and "together with --near_copies" in err


def test_near_copies_are_looked_for_in_what_can_be_read(tmp_path, check_data):
    write_data_set(tmp_path)
    mirror_a_photo(tmp_path)

    def repeat(examples):
        id_of(examples[1])[0] = id_of(examples[0])[0]
        return examples

    rewrite(shard(tmp_path, "test"), repeat)
    code, out, _ = check_data(tmp_path, "--near_copies")
    assert code == 2 and "1 groups across splits" in out and "its id is that of" in out


# Runs


def make_spec(data, run_dir, **changes):
    return Spec.of(
        data_dir=str(data),
        run_dir=str(run_dir),
        image_size=SIZE,
        replicas=2,
        backbone="tiny",
        weights="none",
        batch_size_per_replica=4,
        warmup_epochs=1,
        epochs=1,
        crop_min=1.0,
        tensorboard=False,
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
        train.train(make_spec(data, tmp_path / "run", shuffle_buffer=1))
    assert f"{path}: record 1 of " in str(caught.value)
    assert f"id {split}-{number:04d}: a JPEG whose pixels cannot be decoded" in str(caught.value)
    assert not (tmp_path / "run" / "scores.json").exists()


def test_an_error_of_another_kind_is_left_as_it_is(tmp_path, monkeypatch):
    data = write_data_set(tmp_path / "data")

    def fail(*_):
        raise tf.errors.InvalidArgumentError(None, None, "of another kind")

    monkeypatch.setattr(train, "predict_test", fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"):
        train.train(make_spec(data, tmp_path / "run"))


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


def test_a_run_that_skips_is_the_run_of_the_data_without_bad_records(tmp_path, capsys, caplog):
    bad, without = (write_data_set(tmp_path / name) for name in ("bad", "without"))
    damage(bad)
    without_bad(without)
    spec = make_spec(bad, tmp_path / "skipping", bad_records="skip")
    train.train(spec)
    out = capsys.readouterr().out
    for line in ("train: 3 bad", "val: 1 bad", "test: 1 bad", "lacks the 1 photos left out"):
        assert line in out
    assert "without the records left out the submission is incomplete" in caplog.text
    train.train(make_spec(without, tmp_path / "plain"))
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
    evaluate.evaluate(spec, EvaluateOptions())
    assert path.read_text() == "".join(written.splitlines(keepends=True)[:5])
    assert json.loads((tmp_path / "skipping" / "scores.json").read_text())["val"]["left_out"] == 1
    predict.predict(spec, PredictOptions())
    assert path.read_text() == written


def test_a_run_is_not_continued_with_other_records_left_out(tmp_path, monkeypatch):
    data = write_data_set(tmp_path / "data")
    spec = make_spec(data, tmp_path / "run", bad_records="skip")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "fit", stop)
        train.train(spec)
    assert (tmp_path / "run" / "bad_records.csv").read_text() == "split,file,record,id,problem\n"
    rewrite(shard(data), cut_photo(0))
    with pytest.raises(RequestError, match="train has 23 photos, but the run began with 24"):
        train.train(spec)
    # As a run of version 0.1, which knows its data by nothing else.
    (tmp_path / "run" / "data.json").unlink()
    with pytest.raises(RequestError, match=r"bad_records\.csv: lists other records"):
        train.train(spec)


def test_ids_of_a_step_are_those_it_sees(tmp_path, make_strategy):
    """What names the photos of a step counts the records in use, as the step does."""
    data = write_data_set(tmp_path / "data")
    rewrite(shard(data), cut_photo(5))
    spec = make_spec(data, tmp_path / "run", bad_records="skip", global_batch_size=8)
    split = read_split(str(data), "train", 3, bad_records="skip")
    label_of = dict(zip(split.ids, split.labels, strict=True))
    recipe = Recipe.on(Devices(make_strategy(1), Facts("CPU")), spec)
    feed = Feed(recipe, {"train": split})
    batches = iter(feed.train_batches(0, 4))
    for step in range(4):
        ids = feed.ids_of_step(step)
        labels = next(batches)["label"].numpy()
        assert [label_of[example_id] for example_id in ids] == labels.tolist()
