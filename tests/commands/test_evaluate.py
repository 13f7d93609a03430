"""Which runs may be evaluated, and what is said of an evaluation."""

import os
import shutil

import pandas as pd
import pytest

from flowers_tpu.commands import evaluate, train
from flowers_tpu.runs import report
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.opening import open_trained
from flowers_tpu.runs.options import EvaluateOptions, ResultsOptions
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RequestError, RunError
from tests import finished_runs
from tests.calling import call
from tests.photos import write_data_set, write_split
from tests.stopping import train_until


@pytest.fixture
def run(tmp_path):
    """As a run is left that was killed after its last epoch: without scores."""
    run = finished_runs.write_run(tmp_path / "run", write_data_set(tmp_path / "data"))
    os.remove(run.folder.file("scores.json"))
    return run


def keep_epochs(folder, epochs):
    os.remove(folder.file("history.csv"))
    if epochs:
        folder.write_table("history.csv", finished_runs.HISTORY[:epochs])


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_run_that_is_not_trained_is_refused(run, epochs):
    """With scores, scripts/train.py would take it for finished."""
    keep_epochs(run.folder, epochs)
    with pytest.raises(RequestError, match=rf"\({epochs} of at most 4 epochs .*scripts/train.py"):
        evaluate.evaluate(run.recipe.spec, EvaluateOptions())
    assert not run.folder.has("scores.json")


@pytest.mark.parametrize(
    ("epochs_done", "patience", "is_trained"), [(4, 1, True), (4, 2, False), (3, 1, False)]
)
def test_a_run_that_stopped_early_is_trained(tmp_path, epochs_done, patience, is_trained):
    """Of at most 10 epochs; the last of the four is the first that is no better."""
    run = finished_runs.write_run(
        tmp_path / "run",
        write_data_set(tmp_path / "data"),
        epochs=9,
        early_stopping_patience=patience,
    )
    os.remove(run.folder.file("scores.json"))
    keep_epochs(run.folder, epochs_done)
    error, message = RequestError, f"{epochs_done} of at most 10 epochs"
    if is_trained:  # and its weights are looked for
        error, message = RunError, "ckpt-3: is not there, but the history says that epoch 3"
    with pytest.raises(error, match=message):
        open_trained(
            *(run.folder, run.folder, run.recipe.spec, ResultsOptions(), ("val",)),
            must_have_ended=True,
        )


@pytest.mark.parametrize(
    ("flags", "refused"),
    [({"seed": 3}, "--seed"), ({"image_size": 48, "dropout": 0.5}, "--dropout")],
)
def test_what_the_weights_depend_on_cannot_be_another(run, flags, refused):
    with pytest.raises(RequestError, match=f"{refused} cannot differ from that of the run"):
        evaluate.evaluate(run.recipe.spec.changed(**flags), EvaluateOptions())


def test_a_refused_run_is_continued_then_scored_with_other_photos(tmp_path, monkeypatch):
    data, others = (
        write_data_set(tmp_path / name, train=train, val=val)
        for name, train, val in (("data", 26, 10), ("others", 12, 7))
    )
    spec = Spec.of(
        data_dir=str(data),
        run_dir=str(tmp_path / "run"),
        image_size=32,
        backbone="tiny",
        weights="none",
        batch_size_per_replica=8,
        warmup_epochs=0,
        epochs=2,
        learning_rate=1e-2,
        steps_per_loop=1,
        tensorboard=False,
        report=False,
    )
    # A poll before and one after each of 3 steps, then of 2 batches of validation, then of a step.
    train_until(monkeypatch, spec, 4 + 3 + 2)
    with pytest.raises(RequestError, match="1 of at most 2 epochs are done"):
        evaluate.evaluate(spec, EvaluateOptions())
    train.train(spec)
    folder = RunFolder(spec.run.run_dir)
    assert folder.read_json("scores.json")["val"]["examples"] == 10

    # As if it had begun with downloaded weights: no evaluation needs them.
    saved = folder.read_json("config.json")
    saved["flags"]["weights"] = "imagenet"
    folder.write_json("config.json", saved)
    reported = []
    monkeypatch.setattr(report, "report", lambda recipe, *_: reported.append(recipe.spec))
    given = spec.changed(data_dir=str(others), weights="imagenet")
    evaluate.evaluate(given, EvaluateOptions())
    assert folder.read_json("scores.json")["val"]["examples"] == 7
    assert [(s.data.data_dir, s.model.weights) for s in reported] == [(str(others), "imagenet")]


def test_labeled_test_photos_are_scored(trained_runs, tmp_path, capsys):
    data = write_data_set(tmp_path / "data", size=48)
    spec, _ = RunFolder(str(trained_runs[1])).read_specs()
    labels = write_split(tmp_path / "labeled", "val", 7)
    shutil.rmtree(data / "test")
    (tmp_path / "labeled" / "val").rename(data / "test")
    output = tmp_path / "scores"
    flags = ("--split=test", f"--data_dir={data}", f"--output_dir={output}", "--replicas=1")
    os.remove(data / "sample_submission.csv")
    assert call("evaluate", f"--run_dir={trained_runs[1]}", *flags) == 0
    scores = RunFolder(str(output)).read_json("scores_test.json")["test"]
    table = pd.read_csv(output / "predictions_test.csv")
    assert scores["examples"] == 7 and table["label"].tolist() == labels.tolist()
    right = (table["label"] == table["predicted_label"]).mean()
    assert scores["accuracy"] == pytest.approx(right)
    assert spec.run.report is False and not (output / "scores.json").exists()
    assert "    test" in capsys.readouterr().out
    confusion = pd.read_csv(output / "confusion_test.csv", index_col=0)
    assert confusion.to_numpy().sum() == 7


def test_test_photos_without_labels_are_named(trained_runs, tmp_path, capsys):
    data = write_data_set(tmp_path / "data")
    flags = ("--split=test", f"--data_dir={data}", f"--output_dir={tmp_path}/scores")
    assert call("evaluate", f"--run_dir={trained_runs[1]}", *flags) == 2
    assert ".tfrec: its records have no labels (the feature `class`)" in capsys.readouterr().err
