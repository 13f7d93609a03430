"""A run's record elsewhere: each epoch once, however often the run was interrupted."""

import json

import pytest

from flowers_tpu.commands.cli import main
from flowers_tpu.monitor import trackers
from flowers_tpu.monitor.watchers import Results, Watchers
from flowers_tpu.system.errors import RequestError
from tests.monitor.watching import epoch_of, row

ROWS = [row(number) for number in (1, 2, 3)]


class Remembers(trackers.Tracker):
    """What the real ones pass on."""

    name = "memory"

    def __init__(self, *args):
        super().__init__(*args)
        self.heard = []

    def open(self, record, title):
        self.heard.append(("open", record, title))
        return record or "new"

    def add(self, epoch, values):
        self.heard.append((epoch, sorted(values)))

    def finish(self, scores, pictures):
        self.heard.append((dict(scores), list(pictures)))


def epochs(tracker):
    return [what[0] for what in tracker.heard if isinstance(what[0], int)]


def test_a_record_has_each_epoch_once_and_goes_on(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "tracking.json").write_text(json.dumps({"other": {"id": "x", "epochs": 9}}))
    with Remembers(str(run), {"seed": 3}, []) as first:
        first.on_epoch(epoch_of(ROWS[:1]))
        first.on_epoch(epoch_of(ROWS[:2]))
    assert first.heard[0] == ("open", "", "run") and epochs(first) == [1, 2]
    kept = json.loads((run / "tracking.json").read_text())
    assert kept == {"other": {"id": "x", "epochs": 9}, "memory": {"id": "new", "epochs": 2}}
    # Killed after the third epoch was saved and before it was told.
    with Remembers(str(run), {"seed": 3}, ROWS) as second:
        pass
    assert second.heard[0] == ("open", "new", "run") and epochs(second) == [3]


def test_what_is_told_of_an_epoch_and_of_the_end(tmp_path):
    with Remembers(str(tmp_path), {}, ROWS[:1]) as tracker:
        scores = {"val": {"macro_f1": 0.5, "loss": None}}
        tracker.on_results(Results(scores, ["plots/a.png"]))
    (_, names), final = tracker.heard[1:]
    assert {"loss", "val_accuracy", "learning_rate", "epoch"} <= set(names)
    assert "stage" not in names
    assert final == ({"final_val_macro_f1": 0.5}, ["plots/a.png"])


def test_a_tracker_that_fails_is_a_warning(tmp_path, caplog):
    class Fails(Remembers):
        def add(self, epoch, values):
            raise OSError("no network")

    with Watchers([Fails(str(tmp_path), {}, [])]) as watching:
        watching.on_epoch(epoch_of(ROWS[:1]))
        watching.on_epoch(epoch_of(ROWS[:2]))


def test_a_package_that_is_missing_is_said_before_training(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(trackers.importlib, "import_module", missing)
    with pytest.raises(RequestError, match=r"--track=mlflow: .*pip install '\.\[mlflow\]'"):
        trackers.check_installed("mlflow")


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    """The real package, without a network."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert train(tmp_path, "wandb") == train(tmp_path, "wandb", "--epochs=3")
    kept = sorted(file.name for file in (tmp_path / "run" / "wandb").glob("offline-*/*.wandb"))
    # Opened for training, for the results, and both again: all of one record.
    assert len(kept) == 4 and len(set(kept)) == 1


@pytest.mark.slow
def test_mlflow_in_files(tmp_path, monkeypatch):
    """The real package, its record in a folder."""
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/record")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    record = train(tmp_path, "mlflow")
    assert record == train(tmp_path, "mlflow", "--epochs=3")
    client = mlflow.MlflowClient()
    run = client.get_run(record)
    assert run.data.params["backbone"] == "tiny" and run.info.status == "FINISHED"
    assert "final_val_macro_f1" in run.data.metrics
    told = client.get_metric_history(record, "val_loss")
    assert sorted(metric.step for metric in told) == [1, 2, 3]
    assert any(file.path.endswith(".png") for file in client.list_artifacts(record, "plots"))


def train(tmp_path, tracker, *more):
    """Trains, or goes on with, a tiny run; returns the id of its record."""
    from tests.photos import write_data_set

    data = tmp_path / "data"
    if not data.exists():
        write_data_set(data, train=8, val=6, test=3)
    flags = [
        *(f"--data_dir={data}", f"--run_dir={tmp_path}/run", "--backbone=tiny", "--weights=none"),
        *("--image_size=32", "--warmup_epochs=0", "--epochs=2", "--batch_size_per_replica=4"),
        *("--notensorboard", f"--track={tracker}", "--lr_schedule=constant", *more),
    ]
    assert main("train", flags) == 0
    return json.loads((tmp_path / "run" / "tracking.json").read_text())[tracker]["id"]
