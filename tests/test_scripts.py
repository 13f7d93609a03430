"""Whole runs of the scripts, as a person starts them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn import metrics
from tensorflow.python.framework.config import disable_op_determinism

from flowers_tpu.commands import train
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training.checkpoints import Checkpoints
from tests.calling import call
from tests.photos import write_data_set

FLAGS = [
    "--tpu=local",
    "--replicas=2",
    "--image_size=32",
    "--backbone=tiny",
    "--weights=none",
    "--batch_size_per_replica=4",
    "--warmup_epochs=1",
    "--epochs=2",
    "--learning_rate=1e-2",
    "--lr_schedule=constant",
    "--dropout=0.2",
    "--noreport",
]


# What slow work writes where there is no terminal, like "validation: 8 of 9 photos (88 %), …".
PROGRESS = re.compile(r"[\w /]+: [\d,]+ of [\d,]+ \w+ \(\d+ %\)")


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out, err


@pytest.fixture
def run(capsys):
    """Runs a command in this process; gives what it writes."""

    def run(name, *flags, code=0):
        returned = call(name, *flags)
        out, err = capsys.readouterr()
        assert returned == code, out + err
        return out, err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=9, test=5)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    flags = [*FLAGS, "--report", f"--data_dir={data}", f"--run_dir={run_dir}"]
    return run_dir, *finish(start("scripts/train.py", *flags))


def without_progress(err):
    """What is written to standard error besides the progress of slow work."""
    lines = [line for line in err.splitlines() if not PROGRESS.match(line)]
    # TensorFlow 2.15's XLA says this in a thread of its own, when nobody holds its output back.
    return [line for line in lines if "SetPriority unimplemented" not in line]


@pytest.mark.core
def test_a_whole_run(finished, data):
    run_dir, out, err = finished
    assert "no TPU found" in err and "running on 2 CPU replicas instead" in err
    assert len(without_progress(err)) == 1, err  # no chatter of TensorFlow
    for text in ("2 CPU replicas, global batch 8", "26 train, 9 val, 5 test", "3 steps per epoch"):
        assert text in out
    history = pd.read_csv(run_dir / "history.csv")
    assert list(history["stage"]) == ["warmup", "finetune", "finetune"]
    assert list(history["step"]) == [3, 6, 9]
    np.testing.assert_allclose(history["learning_rate"], [5e-5, 5e-3, 5e-3], rtol=1e-6)

    scores = json.loads((run_dir / "scores.json").read_text())
    for split in ("train", "val"):
        table = pd.read_csv(run_dir / f"predictions_{split}.csv")
        truth, predicted = table["label"], table["predicted_label"]
        assert scores[split]["examples"] == len(table) == {"train": 26, "val": 9}[split]
        f1 = metrics.f1_score(truth, predicted, average="macro", zero_division=0)
        assert scores[split]["macro_f1"] == pytest.approx(f1, abs=1e-12)
        assert scores[split]["loss"] == pytest.approx(table["loss"].mean())
        matrix = pd.read_csv(run_dir / f"confusion_{split}.csv", index_col=0).to_numpy()
        np.testing.assert_array_equal(
            matrix, metrics.confusion_matrix(truth, predicted, labels=range(3))
        )
        report = pd.read_csv(run_dir / f"classification_report_{split}.csv", index_col=0)
        assert report.loc["macro avg", "f1-score"] == pytest.approx(f1)
    best = history["val_macro_f1"][1:].idxmax()
    assert scores["val"]["loss"] == pytest.approx(history["val_loss"][best], rel=1e-5)
    assert scores["val"]["macro_f1"] == pytest.approx(history["val_macro_f1"][best])

    submission = pd.read_csv(run_dir / "submission.csv")
    assert list(submission.columns) == ["id", "label"]
    assert list(submission["id"]) == [f"test-{n:04d}" for n in range(5)]
    for name in ("flags.txt", "config.json", "environment.json", "timing.csv"):
        assert (run_dir / name).exists()

    report = (run_dir / "report.html").read_text()
    assert f"<dd>{scores['val']['macro_f1']:.4f}</dd>" in report and "report.html" in out
    assert report.count("<img ") == len(list((run_dir / "plots").glob("*.png"))) > 10


def test_all_can_be_deterministic(data, tmp_path, run):
    """TensorFlow then refuses every operation that is not."""
    try:
        run("train", *FLAGS, "--deterministic", f"--data_dir={data}", f"--run_dir={tmp_path}/run")
    finally:
        disable_op_determinism()
    assert not pd.read_csv(tmp_path / "run" / "timing.csv")["input_seconds"].any()


def test_the_same_command_on_a_finished_run_prints_its_scores(finished, data, run):
    run_dir, *_ = finished

    def times():
        return {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.name != "lock"}

    before = times()
    out, _ = run("train", *FLAGS, "--report", f"--data_dir={data}", f"--run_dir={run_dir}")
    assert "is finished" in out and "macro F1" in out
    assert times() == before


def test_changed_flags_are_refused_by_name(finished, data, run):
    run_dir, *_ = finished
    before = (run_dir / "config.json").read_text()
    _, err = run(
        *("train", *FLAGS, f"--data_dir={data}", f"--run_dir={run_dir}", "--seed=4"), code=2
    )
    assert "--seed was 0, is 4" in err and "--overwrite" in err
    assert (run_dir / "config.json").read_text() == before


def test_evaluate_and_predict_give_the_same_again(finished, tmp_path, run):
    run_dir, *_ = finished
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    written = ("scores.json", "submission.csv", "predictions_val.csv", "confusion_train.csv")
    written += ("report.html", "plots/loss.png")
    for name in written:
        (copy / name).unlink()
    run("evaluate", f"--run_dir={copy}", "--replicas=1", "--batch_size_per_replica=5")
    assert "<h2>Confusion</h2>" in (copy / "report.html").read_text()
    run("predict", f"--run_dir={copy}")
    for name in ("submission.csv", "confusion_train.csv", "plots/loss.png"):
        assert (copy / name).read_bytes() == (run_dir / name).read_bytes()
    before, after = (json.loads((d / "scores.json").read_text()) for d in (run_dir, copy))
    for split in before:
        assert after[split] == pytest.approx(before[split], rel=1e-5)


def test_a_stopped_run_ends_as_an_uninterrupted_one(finished, data, tmp_path, run, monkeypatch):
    run_dir, *_ = finished
    flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={tmp_path / 'run'}", "--steps_per_loop=1"]
    flags.append("--notensorboard")
    save = Checkpoints.save_latest

    def save_and_signal(checkpoints):
        save(checkpoints)
        if not stopped:
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)

    stopped = []
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_latest", save_and_signal)
        _, err = run("train", *flags, code=143)
    assert "the same command continues" in err
    assert not (tmp_path / "run" / "scores.json").exists()
    out, _ = run("train", *flags)
    assert "Continuing in epoch 2, after step 4." in out
    for name in ("history.csv", "submission.csv", "predictions_val.csv", "scores.json"):
        assert (tmp_path / "run" / name).read_bytes() == (run_dir / name).read_bytes(), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no_such_flag"], "no_such_flag"),
        (["--backbone=vgg17"], "vgg16"),
        (["--optimizer=adam", "--weight_decay=0.1"], "--weight_decay=0.1 does not go with"),
        (["--data_dir=nowhere"], "--data_dir=nowhere: no such folder"),
        (["--batch_size_per_replica=100"], "fewer than the global batch"),
        (["--weights=nowhere.h5"], "nowhere.h5"),
        (["--require_tpu"], "no TPU found"),
    ],
)
def test_a_wrong_request_ends_with_2_and_writes_nothing(data, tmp_path, run, flags, message):
    run_dir = tmp_path / "run"
    _, err = run("train", *FLAGS, f"--data_dir={data}", f"--run_dir={run_dir}", *flags, code=2)
    assert message in err, err
    assert err.strip().splitlines()[-1].startswith("train: ")
    assert not run_dir.exists()


def test_overwrite_deletes_runs_only(data, tmp_path, run):
    (tmp_path / "thesis.tex").write_text("precious")
    flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={tmp_path}", "--overwrite"]
    _, err = run("train", *flags, code=2)
    assert "holds files but no run" in err
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_overwrite_deletes_nothing_if_the_new_run_cannot_be(data, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("precious")
    given = Spec.of(
        data_dir=str(data), run_dir=str(tmp_path), image_size=32, backbone="tiny", weights="none",
        cache="pixels", overwrite=True,
    )  # fmt: skip
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1))
    with pytest.raises(RequestError, match="--cache=pixels needs"):
        train.train(given)
    assert (tmp_path / "config.json").read_text() == "precious"


def test_overwrite_begins_anew(finished, data, tmp_path, run):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    flags = [*FLAGS, "--epochs=1", "--notensorboard", f"--data_dir={data}"]
    out, _ = run("train", *flags, f"--run_dir={copy}", "--overwrite")
    assert "Continuing" not in out
    assert len(pd.read_csv(copy / "history.csv")) == 2
    assert not (copy / "report.html").exists() and not (copy / "tensorboard").exists()


def test_the_package_is_a_command_too(data):
    """Nothing but its own lines is written, though TensorFlow is started."""
    out, err = finish(
        start("-m", "flowers_tpu", "check_data", f"--data_dir={data}", "--image_size=32")
    )
    assert f"{data}: nothing is wrong." in out
    assert not err
    process = start("-m", "flowers_tpu", "chekc_data")
    assert "commands: train, evaluate" in process.communicate(timeout=100)[0]
    assert process.returncode == 2
