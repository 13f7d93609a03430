"""Runs as they are watched: what is shown is what happened, however often they were interrupted."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.monitor import pictures
from flowers_tpu.monitor import tensorboard as board_lib
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RequestError
from tests.monitor.watching import shown
from tests.photos import write_data_set
from tests.stopping import train_until


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=40, test=5)


def make_spec(data, run_dir, **changes):
    """3 steps an epoch, 5 batches a validation."""
    values = {
        "data_dir": str(data),
        "run_dir": str(run_dir),
        "image_size": 32,
        "replicas": 1,
        "backbone": "tiny",
        "weights": "none",
        "batch_size_per_replica": 8,
        "warmup_epochs": 0,
        "epochs": 3,
        "steps_per_loop": 1,
        "report": False,
    }
    return Spec.of(**(values | changes))


def profiles(run_dir):
    return list((run_dir / "tensorboard").rglob("*.xplane.pb"))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "absl"]


def test_an_interrupted_run_shows_what_its_history_says(data, tmp_path, monkeypatch):
    """Stopped in epoch 2, after step 5; a profile was begun after step 4."""
    run_dir = tmp_path / "run"
    spec = make_spec(data, run_dir, profile_steps="4,6")
    # A poll before the first and after each of 3 steps, of 5 batches, and of 2 steps.
    train_until(monkeypatch, spec, 4 + 6 + 3)
    (cut_short,) = profiles(run_dir)
    cut_short.unlink()
    train.train(spec)
    folder, history = run_dir / "tensorboard", pd.read_csv(run_dir / "history.csv")
    training, validation = shown(folder, "train"), shown(folder, "val")
    for name in ("loss", "accuracy", "top5_accuracy", "macro_f1"):
        for values, column in ((training, name), (validation, f"val_{name}")):
            expected = dict(zip(history["step"], np.float32(history[column]), strict=True))
            assert values[f"epoch/{name}"] == expected, column
    assert list(training["steps/loss"]) == list(range(1, 10))
    assert [training["steps/loss"][step] for step in (3, 6, 9)] == list(np.float32(history["loss"]))
    assert all(norm > 0 for norm in training["steps/gradient_norm"].values())
    assert list(training["configuration"]) == [0]
    assert list(validation["predictions"]) == list(validation["confusion"]) == [9]
    assert not profiles(run_dir), "step 4 was over when the run continued"


def test_pictures_and_profile_are_of_the_run(data, tmp_path, monkeypatch):
    """With one epoch the last weights are the best, so the tables of the run tell what is right."""
    drawn = {}
    real = pictures.Pictures.draw

    def draw(self, counts):
        drawn.update(pictures=self, counts=counts, logits=self._predict(self._photos))
        return real(self, counts)

    monkeypatch.setattr(pictures.Pictures, "draw", draw)
    run_dir = tmp_path / "run"
    # 40 photos, and 16 of them, in batches of 10: the last batch is filled up.
    spec = make_spec(
        data, run_dir, warmup_epochs=1, epochs=1, batch_size_per_replica=10, profile_steps="2,3"
    )
    train.train(spec)
    matrix = pd.read_csv(run_dir / "confusion_val.csv", index_col=0)
    np.testing.assert_array_equal(drawn["counts"], matrix)
    table = pd.read_csv(run_dir / "predictions_val.csv").set_index("id")
    ids = drawn["pictures"]._photos.split.ids
    assert len(set(ids)) == 16
    np.testing.assert_array_equal(drawn["logits"].argmax(axis=1), table.loc[ids, "predicted_label"])
    (profile,) = profiles(run_dir)
    # Of step 3, the first of fine-tuning; the warm-up has no gradients of convolutions.
    assert b"Conv2DBackpropFilter" in profile.read_bytes()


def test_without_the_package_nothing_is_begun(data, tmp_path, monkeypatch):
    monkeypatch.setattr(board_lib, "_MISSING", "No module named 'tensorboard'")
    with pytest.raises(RequestError, match="--notensorboard"):
        train.train(make_spec(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def unwatched(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "unwatched"
    train.train(make_spec(data, run_dir, tensorboard=False))
    return run_dir


def assert_same_results(run_dir, unwatched):
    names = {path.name for path in unwatched.iterdir()}
    assert "tensorboard" not in names, "--notensorboard writes nothing"
    assert {path.name for path in run_dir.iterdir()} == names | {"tensorboard"}
    for name in ("history.csv", "submission.csv", "predictions_val.csv", "scores.json"):
        assert (run_dir / name).read_bytes() == (unwatched / name).read_bytes(), name


def test_a_full_disk_does_not_end_a_training(data, unwatched, tmp_path, monkeypatch, caplog):
    """TensorBoard's; where checkpoints go there is room."""
    real = board_lib.EventFileWriter.add_event

    def add_event(writer, event):
        if event.step > 4:
            raise tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")
        real(writer, event)

    monkeypatch.setattr(board_lib.EventFileWriter, "add_event", add_event)
    run_dir = tmp_path / "run"
    train.train(make_spec(data, run_dir))
    assert warnings(caplog) == [
        "Board: failed (ResourceExhaustedError: events; No space left on device); it watches no "
        "more, and the run goes on"
    ]
    assert list(shown(run_dir / "tensorboard", "train")["steps/loss"]) == [1, 2, 3, 4]
    assert_same_results(run_dir, unwatched)


def test_pictures_that_cannot_be_drawn_do_not_end_a_training(
    data, unwatched, tmp_path, monkeypatch, caplog
):
    def fail(*_):
        raise ValueError("Image size of 99999x9 pixels is too large")

    monkeypatch.setattr(pictures.confusion, "heatmap", fail)
    run_dir = tmp_path / "run"
    train.train(make_spec(data, run_dir))
    (message,) = warnings(caplog)
    assert message.startswith("Pictures: failed (ValueError: Image size of 99999x9 pixels")
    validation = shown(run_dir / "tensorboard", "val")
    assert list(validation["epoch/loss"]) == [3, 6, 9] and "predictions" not in validation
    assert_same_results(run_dir, unwatched)
