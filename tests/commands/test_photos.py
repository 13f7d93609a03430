"""Runs on other photos than those that lie in train/: folds, all of them, further ones."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from tests.calling import call
from tests.photos import jpeg, photo, write_data_set

RUN = (
    *("--image_size=32", "--backbone=tiny", "--weights=none", "--global_batch_size=8"),
    *("--warmup_epochs=0", "--epochs=2", "--learning_rate=1e-2", "--lr_schedule=constant"),
    *("--early_stopping_patience=0", "--notensorboard", "--verbosity=-2"),
)


def train(data, run_dir, *more, code=0):
    assert call("train", f"--data_dir={data}", f"--run_dir={run_dir}", *RUN, *more) == code
    return run_dir


def read(folder, name="scores.json"):
    return json.loads((folder / name).read_text())


def ids(folder, split):
    return pd.read_csv(folder / f"predictions_{split}.csv", dtype={"id": str})["id"].tolist()


def further_data(folder, classes=("Class_1", "weeds"), count=12, seed=9):
    """Photos of classes that are called so, in training and validation."""
    generator = np.random.default_rng(seed)
    for split, number in (("train", count - 4), ("val", 4)):
        rows = [
            records.serialize_example(
                f"train-{n:04d}", jpeg(photo(generator, 32)), n % len(classes)
            )
            for n in range(number)
        ]
        records.write_shards(str(folder / split), rows, 32, 1)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=10, test=6)


def test_folds_are_gathered_to_scores_of_every_photo(data, tmp_path, capsys):
    """Three folds, one on two replicas and one stopped and continued; each photo counts once."""
    folds = [tmp_path / f"fold{k}" for k in range(3)]
    for k, run in enumerate(folds):
        flags = ("--folds=3", f"--fold={k}", "--noreport", f"--replicas={1 + (k == 1)}")
        if k == 2:
            train(data, run, *flags, "--max_hours=1e-9", code=1)
        train(data, run, *flags)
    assert sorted(i for run in folds for i in ids(run, "val")) == sorted(
        [f"train-{n:04d}" for n in range(26)] + [f"val-{n:04d}" for n in range(10)]
    )
    out = tmp_path / "out"
    assert call("ensemble", *folds, f"--output_dir={out}") == 0
    assert "3 folds" in capsys.readouterr().out
    assert read(out)["val"]["examples"] == 36 and len(pd.read_csv(out / "submission.csv")) == 6
    # The same photos are scored again, and other data are scored as they lie.
    again = tmp_path / "again"
    assert call("evaluate", f"--run_dir={folds[0]}", f"--output_dir={again}", "--noreport") == 0
    assert read(again)["val"] == read(folds[0])["val"]
    assert call("evaluate", f"--run_dir={folds[0]}", f"--output_dir={again}", "--noreport",
                "--folds=0", "--fold=0") == 0  # fmt: skip
    assert read(again)["val"]["examples"] == 10


def test_a_fold_goes_on_with_its_own_photos_only(data, tmp_path, capsys):
    run = tmp_path / "run"
    train(data, run, "--folds=3", "--epochs=1", "--noreport")
    capsys.readouterr()
    train(data, run, "--folds=3", "--fold=1", "--epochs=1", "--noreport", code=2)
    assert "--fold was 0, is 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finals(data, tmp_path_factory):
    """Two runs on all labeled photos, of other seeds."""
    folder = tmp_path_factory.mktemp("finals")
    return [
        train(data, folder / f"seed{seed}", "--train_splits=train,val", f"--seed={seed}")
        for seed in (0, 1)
    ]


def test_a_model_of_all_photos_is_measured_by_nothing(finals, data, tmp_path, capsys):
    first = finals[0]
    assert read(first).keys() == {"train"} and read(first)["train"]["examples"] == 36
    history = pd.read_csv(first / "history.csv")
    assert history["val_loss"].isna().all() and history["kept"].tolist() == [True, True]
    assert not (first / "calibration.json").exists()
    assert len(pd.read_csv(first / "submission.csv")) == 6
    page = (first / "report.html").read_text()
    assert "nothing validates" in page and "alidation macro F1" not in page
    out = tmp_path / "again"
    capsys.readouterr()
    assert call("evaluate", f"--run_dir={first}", f"--output_dir={out}") == 0
    assert read(out) == read(first)
    assert call("compare", *finals, f"--output={tmp_path / 'c.png'}") == 0


def test_models_of_all_photos_are_averaged_without_scores(finals, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("ensemble", *finals, f"--output_dir={out}") == 0
    assert "nothing measures their mean" in capsys.readouterr().out
    probabilities = [np.exp(np.load(run / "outputs_test.npz")["logits"]) for run in finals]
    mean = np.mean([p / p.sum(1, keepdims=True) for p in probabilities], axis=0)
    labels = pd.read_csv(out / "submission.csv")["label"]
    assert labels.tolist() == mean.argmax(1).tolist()
    assert read(out).keys() == {"train"}
    assert call("ensemble", *finals, "--weights=search", f"--output_dir={out}") == 2
    assert "has no validation photos (--train_splits=train,val)" in capsys.readouterr().err
    validated = train(data, tmp_path / "validated", "--noreport")
    assert call("ensemble", finals[0], validated, f"--output_dir={out}") == 2
    assert "but the other runs validate" in capsys.readouterr().err


def test_a_model_of_all_photos_is_exported(finals, tmp_path):
    out = tmp_path / "out"
    assert call("export", finals[0], "--format=keras", f"--output_dir={out}") == 0
    card = (out / "MODEL_CARD.md").read_text()
    assert "nothing measures it" in card and "training accuracy" in card


def test_all_photos_are_warmed_up_on_features(data, tmp_path):
    run = train(data, tmp_path / "run", "--train_splits=train,val", "--warmup_on=features",
                "--warmup_epochs=2", "--epochs=1", "--noreport")  # fmt: skip
    assert pd.read_csv(run / "history.csv")["stage"].tolist() == ["warmup", "warmup", "finetune"]


@pytest.mark.parametrize("cache", ["none", "pixels"])
def test_further_photos_train_by_the_names_of_their_classes(data, tmp_path, capsys, cache):
    more = further_data(tmp_path / "more")
    run = train(data, tmp_path / "run", f"--extra_data_dirs={more}", "--noreport",
                f"--cache={cache}")  # fmt: skip
    assert read(run)["train"]["examples"] == 26 + 6 and read(run)["val"]["examples"] == 10
    table = pd.read_csv(run / "further_photos.csv", keep_default_na=False)
    assert table[["its_class", "class", "photos", "taken", "other_class"]].values.tolist() == [
        ["Class_1", "class 1", 6, 6, 0],
        ["weeds", "", 6, 0, 6],
    ]
    assert f"{more}: 6 of 12 photos train; left out: 6 of other classes" in capsys.readouterr().out
    predicted = pd.read_csv(run / "predictions_train.csv")
    assert (predicted[predicted["id"].str.startswith("more/")]["name"] == "class 1").all()
    # The run goes on only with the same photos.
    further_data(more, seed=10)
    train(data, run, f"--extra_data_dirs={more}", "--noreport", "--epochs=3", code=2)
    assert "train holds other photos or labels" in capsys.readouterr().err


def test_a_bad_record_of_further_photos_is_named_or_left_out(data, tmp_path, capsys):
    more = further_data(tmp_path / "more")
    (shard,) = (more / "train").glob("*.tfrec")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    train(data, tmp_path / "run", f"--extra_data_dirs={more}", "--noreport", code=2)
    assert str(shard) in capsys.readouterr().err
    run = train(data, tmp_path / "skips", f"--extra_data_dirs={more}", "--bad_records=skip",
                "--noreport")  # fmt: skip
    assert read(run)["train"]["examples"] == 26 + 6  # the last of training was of the weeds
    assert pd.read_csv(run / "bad_records.csv")["file"].tolist() == [shard.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no names", "has no classes.txt"),
        (
            "another size",
            "has photos of 16 px, but the data have 32 px; convert them to that size by "
            "scripts/make_tfrecords.py --sizes=32",
        ),
        ("no labels", "has neither train/ nor val/"),
        ("not there", "no such folder"),
    ],
)
def test_further_photos_that_cannot_be_used(data, tmp_path, capsys, change, message):
    more = further_data(tmp_path / "more")
    if change == "no names":
        (more / "classes.txt").unlink()
    elif change == "another size":
        shutil.rmtree(more / "train")
        rows = [records.serialize_example("a", jpeg(photo(np.random.default_rng(0), 16)), 0)]
        records.write_shards(str(more / "train"), rows, 16, 1)
    elif change == "no labels":
        (more / "val").rename(more / "test")
        shutil.rmtree(more / "train")
    else:
        shutil.rmtree(more)
    train(data, tmp_path / "run", f"--extra_data_dirs={more}", code=2)
    said = capsys.readouterr().err
    assert message in said and "--extra_data_dirs" in said
    assert not (tmp_path / "run" / "config.json").exists()


def test_validation_photos_among_further_ones_do_not_train(data, tmp_path):
    """The data set itself as further photos: those of training train once, the others not."""
    run = train(data, tmp_path / "run", f"--extra_data_dirs={data}", "--noreport",
                "--allow_near_copies")  # fmt: skip
    assert sorted(ids(run, "train")) == [f"train-{n:04d}" for n in range(26)]
    table = pd.read_csv(run / "further_photos.csv")
    assert table[["taken", "copy_of_val", "copy_of_train"]].sum().tolist() == [0, 10, 26]
    assert read_split(str(data), "val", 3).size == 10


def test_test_photos_of_which_a_run_is_sure_train_and_scores_say_so(data, tmp_path, capsys):
    first = train(data, tmp_path / "first", "--noreport")
    table = pd.read_csv(first / "predictions_test.csv").sort_values("calibrated_confidence")
    threshold = table["calibrated_confidence"].iloc[2]  # four of six are as sure as the third
    out = tmp_path / "sure"
    flags = (f"--run_dir={first}", f"--output_dir={out}")
    before = (first / "predictions_test.csv").read_bytes()
    assert call("predict", *flags, f"--pseudo_labels={threshold - 1e-6}") == 0
    assert (first / "predictions_test.csv").read_bytes() == before
    sure = table.iloc[2:].set_index("id")
    made = read_split(str(out), "train", 3)
    assert dict(zip(made.ids, made.labels, strict=True)) == sure["predicted_label"].to_dict()
    test = read_split(str(data), "test", 3)
    assert set(made.fingerprints) <= set(test.fingerprints)
    about = read(out, "pseudo_labels.json")
    assert about["run"] == str(first) and (about["photos"], about["of"]) == (4, 6)
    listed = pd.read_csv(out / "pseudo_labels.csv").set_index("id")["confidence"]
    np.testing.assert_allclose(listed[sure.index], sure["calibrated_confidence"], atol=1e-6)
    assert call("predict", *flags, "--pseudo_labels=0.5") == 2  # not replaced
    second = train(data, tmp_path / "second", f"--extra_data_dirs={out}")
    scores = read(second)
    assert scores["train"]["examples"] == 26 + 4
    assert scores["val"]["test_photos_in_training"] == 4
    assert "test photos in training" in (second / "report.html").read_text()
    again = tmp_path / "again"
    assert call("evaluate", f"--run_dir={second}", f"--output_dir={again}", "--noreport") == 0
    assert read(again) == scores
    capsys.readouterr()
    assert call("predict", *flags[:1], f"--output_dir={tmp_path / 'none'}",
                "--pseudo_labels=1") == 2  # fmt: skip
    assert "the surest has" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert call("predict", *flags[:1], "--pseudo_labels=0.5") == 2
    assert "needs a folder to make" in capsys.readouterr().err


def test_photos_that_a_model_labeled_train_with_all_photos_and_in_folds(data, tmp_path):
    """The labels are taken for what they are; no photo is there twice, none that validates."""
    out = tmp_path / "sure"
    first = train(data, tmp_path / "first", "--noreport")
    assert call("predict", f"--run_dir={first}", f"--output_dir={out}", "--pseudo_labels=0.01") == 0
    every = train(data, tmp_path / "all", f"--extra_data_dirs={out}", "--train_splits=train,val",
                  "--noreport")  # fmt: skip
    assert read(every)["train"]["examples"] == 42 and len(set(ids(every, "train"))) == 42
    fold = train(data, tmp_path / "fold", f"--extra_data_dirs={out}", "--folds=2", "--noreport")
    scores = read(fold)
    assert scores["train"]["examples"] == 42 - scores["val"]["examples"]
    assert scores["val"]["test_photos_in_training"] == 6


def damaged(data, folder, split="train", number=3):
    """A copy of a data set of which one record has no photo."""
    shutil.copytree(data, folder)
    path = sorted((folder / split).glob("*.tfrec"))[0]
    rows = [
        tf.train.Example.FromString(row)
        for row in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    rows[number].features.feature["image"].bytes_list.value[0] = b"no photo"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(row.SerializeToString())
    return folder


def test_folds_with_further_photos_skipped_records_and_views_count_each_photo_once(data, tmp_path):
    bad, more = damaged(data, tmp_path / "bad"), further_data(tmp_path / "more")
    results = []
    for k in range(2):
        run = tmp_path / f"fold{k}"
        train(bad, run, "--folds=2", f"--fold={k}", f"--extra_data_dirs={more}",
              "--bad_records=skip", "--cache=records", "--noreport")  # fmt: skip
        assert read(run)["train"]["examples"] + read(run)["val"]["examples"] == 35 + 6
        assert read(run)["train"]["left_out"] == 1 and "left_out" not in read(run)["val"]
        results.append(tmp_path / f"views{k}")
        flags = (f"--run_dir={run}", f"--output_dir={results[-1]}", "--views=flip")
        assert call("evaluate", *flags, "--noreport") == call("predict", *flags) == 0
    out = tmp_path / "out"
    assert call("ensemble", *results, f"--output_dir={out}") == 0
    scored = ids(out, "val")
    assert len(scored) == len(set(scored)) == 35 and "train-0003" not in scored
    assert not any(name.startswith("more/") for name in scored)
    assert len(pd.read_csv(out / "submission.csv")) == 6


def test_all_photos_with_further_ones_skipped_records_and_views(data, tmp_path):
    bad, more = damaged(data, tmp_path / "bad", "val"), further_data(tmp_path / "more")
    results = []
    for seed in range(2):
        run = tmp_path / f"seed{seed}"
        train(bad, run, "--train_splits=train,val", f"--seed={seed}", "--bad_records=skip",
              f"--extra_data_dirs={more}", "--noreport", f"--replicas={1 + seed}")  # fmt: skip
        assert read(run)["train"]["examples"] == 35 + 6 and read(run)["train"]["left_out"] == 1
        results.append(tmp_path / f"views{seed}")
        flags = (f"--run_dir={run}", f"--output_dir={results[-1]}", "--views=flip,crops")
        assert call("evaluate", *flags, "--noreport") == call("predict", *flags) == 0
        assert read(results[-1])["train"]["examples"] == 41
    out = tmp_path / "out"
    assert call("ensemble", *results, f"--output_dir={out}") == 0
    assert len(set(ids(out, "train"))) == 41 and len(set(ids(out, "test"))) == 6


def test_photos_of_one_fold_score_no_run_that_was_trained_on_them(data, tmp_path, capsys):
    """A fold and a run on all photos, or on the usual split, are no ensemble."""
    fold = train(data, tmp_path / "fold", "--folds=3", "--epochs=1", "--noreport")
    usual = train(data, tmp_path / "usual", "--epochs=1", "--noreport")
    assert call("ensemble", fold, usual, f"--output_dir={tmp_path / 'out'}") == 2
    assert "neither the same photos nor folds" in capsys.readouterr().err
