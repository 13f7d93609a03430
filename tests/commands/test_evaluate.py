"""Which runs may be evaluated, and what is said of an evaluation."""

import dataclasses
import os

import pytest
from tests.test_live import make_config

from flowers_tpu.commands import train
from flowers_tpu.runs import report
from flowers_tpu.runs.folder import RunDirectory
from flowers_tpu.system.errors import RequestError, StoppedError
from tests import runs
from tests.photos import write_data_set
from tests.test_resume import StopAt


@pytest.fixture
def run(tmp_path):
    """As a run is left that was killed after its last epoch: without scores."""
    run, _ = runs.write_run(tmp_path / "run", write_data_set(tmp_path / "data"))
    (tmp_path / "run" / "scores.json").unlink()
    return run


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_run_that_is_not_trained_is_refused(run, epochs):
    """With scores, scripts/train.py would take it for finished."""
    os.remove(run.file("history.csv"))
    if epochs:
        run.write_table("history.csv", runs.HISTORY[:epochs])
    given, _ = run.read_configs()
    with pytest.raises(RequestError, match=rf"\({epochs} of at most 4 epochs .*scripts/train.py"):
        train.evaluate(given)
    assert not run.has("scores.json")


@pytest.mark.parametrize(
    ("epochs_done", "patience", "is_trained"), [(4, 1, True), (4, 2, False), (3, 1, False)]
)
def test_a_run_that_stopped_early_is_trained(run, epochs_done, patience, is_trained):
    """Of at most 10 epochs; the last of the four is the first that is no better."""
    _, config = run.read_configs()
    config = dataclasses.replace(config, epochs=9, early_stopping_patience=patience)
    run.write_table("history.csv", runs.HISTORY[:epochs_done])
    if is_trained:
        train._check_trained(run, config)
        return
    with pytest.raises(RequestError, match=f"{epochs_done} of at most 10 epochs"):
        train._check_trained(run, config)


def test_a_refused_run_is_continued_then_scored_with_other_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(RunDirectory, "lock", lambda self: None)  # several commands, one process
    data, others = (
        write_data_set(tmp_path / name, train=train, val=val)
        for name, train, val in (("data", 26, 10), ("others", 12, 7))
    )
    config = make_config(data, tmp_path / "run", epochs=2, tensorboard=False)
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    monkeypatch.setattr(StopAt, "stop_at", 3 + 2 + 1)  # 3 steps, 2 batches of validation, 1 step
    with pytest.raises(StoppedError):
        train.train(config)
    monkeypatch.setattr(StopAt, "stop_at", None)
    with pytest.raises(RequestError, match="1 of at most 2 epochs are done"):
        train.evaluate(config)
    train.train(config)
    run = RunDirectory(config.run_dir)
    assert run.read_json("scores.json")["val"]["examples"] == 10

    # As if it had begun with downloaded weights: no evaluation needs them.
    saved = run.read_json("config.json")
    saved["flags"]["weights"] = saved["resolved"]["weights"] = "imagenet"
    run.write_json("config.json", saved)
    reported = []
    monkeypatch.setattr(reporting, "report", lambda config, *_: reported.append(config))
    config = dataclasses.replace(config, data_dir=str(others), weights="imagenet")
    train.evaluate(config)
    assert run.read_json("scores.json")["val"]["examples"] == 7
    assert [(c.data_dir, c.weights) for c in reported] == [(str(others), "imagenet")]
