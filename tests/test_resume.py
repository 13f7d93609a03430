"""A run that is interrupted anywhere ends bit for bit where an uninterrupted one does."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.spec import Spec
from tests.photos import write_data_set
from tests.stopping import train_polled, train_until

WRITTEN = ("history.csv", "submission.csv", "predictions_val.csv", "scores.json")


def tensors(run_dir):
    """Every tensor of the newest checkpoint but the number of checkpoints there have been."""
    path = tf.train.latest_checkpoint(str(run_dir / "checkpoints" / "latest"))
    reader = tf.train.load_checkpoint(path)
    names = set(reader.get_variable_to_shape_map()) - {"save_counter/.ATTRIBUTES/VARIABLE_VALUE"}
    return {name: reader.get_tensor(name) for name in names}


def assert_same_run(a, b):
    for name in WRITTEN:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def make_spec(data, run_dir, **changes):
    """Two stages, batch normalization on 2 replicas, dropout, an average of weights, two rates."""
    values = {
        "data_dir": str(data),
        "run_dir": str(run_dir),
        "image_size": 32,
        "replicas": 2,
        "backbone": "small_cnn",
        "weights": "none",
        "batch_size_per_replica": 4,
        "warmup_epochs": 1,
        "epochs": 2,
        "learning_rate": 1e-2,
        "dropout": 0.3,
        "ema_decay": 0.5,
        "backbone_rate": 0.5,
        "steps_per_loop": 1,
        "tensorboard": False,
        "report": False,
    }
    return Spec.of(**(values | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=9, test=5)


@pytest.fixture(scope="module")
def whole_and_polls(data, tmp_path_factory):
    """An uninterrupted run, and how often it asked whether a signal had come."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, train_polled(pytest.MonkeyPatch(), make_spec(data, run_dir))


@pytest.fixture(scope="module")
def whole(whole_and_polls):
    return whole_and_polls[0]


def test_results_are_those_of_the_average(whole):
    """Validation, best weights and scores all have it in the place of the weights."""
    history = pd.read_csv(whole / "history.csv")
    kept = history[history["kept"]].iloc[-1]
    scores = json.loads((whole / "scores.json").read_text())["val"]
    assert scores["loss"] == pytest.approx(kept["val_loss"], rel=1e-5)
    assert scores["macro_f1"] == pytest.approx(kept["val_macro_f1"])
    best = tf.train.load_checkpoint(
        str(whole / "checkpoints" / "best" / f"ckpt-{int(kept['epoch'])}")
    )
    name = next(n for n in best.get_variable_to_shape_map() if "kernel" in n)
    if kept["epoch"] == len(history):  # then `latest` is of the same moment
        assert not np.array_equal(best.get_tensor(name), tensors(whole)[name])


def stop_and_continue(monkeypatch, spec, *stops):
    """Runs until the given polls, one after the other, then to the end."""
    for stop in stops:
        train_until(monkeypatch, spec, stop)
    train.train(spec)


def test_two_runs_of_one_seed_are_the_same(whole, data, tmp_path):
    """Also with other steps per call, and with checkpoints within epochs."""
    spec = make_spec(data, tmp_path / "run", steps_per_loop=0, checkpoint_every_steps=2)
    train.train(spec)
    assert_same_run(whole, tmp_path / "run")


# Polls of an uninterrupted run: in each of the 3 epochs one before and one after each of 3 steps,
# the same of the 2 batches of its validation; then one for each batch of the final predictions
# (test, train and val: 1, 4 and 2 batches).
OF_VALIDATION = 1 + 2
OF_EPOCH = (1 + 3) + OF_VALIDATION
POLLS = 3 * OF_EPOCH + 1 + 4 + 2


def test_the_polls_are_where_they_are_thought_to_be(whole_and_polls):
    assert whole_and_polls[1] == POLLS


# Where a run is stopped, one place after the other: at which poll of the process that goes on from
# the place before, and how many steps of the run are done by then.
IN_PLACES = {
    "warm-up": (1 + 2, 2),
    "validation at the change of stage": (1 + 1 + 2, 3),
    "fine-tuning": (1 + OF_VALIDATION + 1 + 2, 5),
    "last validation": (1 + 1 + OF_VALIDATION + (1 + 3) + 2, 9),
    "final prediction": (1 + OF_VALIDATION + 2, 9),
}


def steps_done(run_dir):
    return tensors(run_dir)["step/.ATTRIBUTES/VARIABLE_VALUE"]


@pytest.mark.core
def test_stopped_in_every_place(whole, data, tmp_path, monkeypatch):
    """Also if the cache is another one every time."""
    spec, caches = make_spec(data, tmp_path / "run"), itertools.cycle(("none", "records", "pixels"))
    for place, (poll, steps) in IN_PLACES.items():
        train_until(monkeypatch, spec.changed(cache=next(caches)), poll)
        assert steps_done(tmp_path / "run") == steps, place
        in_prediction = (tmp_path / "run" / "predictions_test.csv").exists()
        assert in_prediction == (place == "final prediction")
    train.train(spec)
    assert_same_run(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def whole_on_device(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "on_device"
    train.train(make_spec(data, run_dir, augment_on="device"))
    return run_dir


def test_where_photos_are_augmented_makes_hardly_any_difference(whole, whole_on_device):
    """A few pixels may be rounded otherwise; that is all."""
    runs = (RunFolder(str(run_dir)) for run_dir in (whole, whole_on_device))
    routes = [run.read_specs()[1].augments_on for run in runs]
    assert routes == ["host", "device"]
    on_host, on_device = (pd.read_csv(d / "history.csv") for d in (whole, whole_on_device))
    assert on_host.columns.tolist() == on_device.columns.tolist()
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(on_host[name], on_device[name], rtol=0.01)


def test_stopped_while_the_device_augments(whole_on_device, data, tmp_path, monkeypatch):
    """Also if the cache is another one every time."""
    spec = make_spec(data, tmp_path / "run", augment_on="device")
    for cache, stop in (("none", 4), ("records", 5)):
        train_until(monkeypatch, spec.changed(cache=cache), stop)
    train.train(spec.changed(cache="pixels"))
    assert_same_run(whole_on_device, tmp_path / "run")


@pytest.mark.slow
def test_stopped_anywhere(whole, data, tmp_path, monkeypatch):
    for poll in range(1, POLLS + 1):
        run_dir = tmp_path / str(poll)
        stop_and_continue(monkeypatch, make_spec(data, run_dir), poll)
        assert_same_run(whole, run_dir)


def test_stopped_twice_and_continued_on_other_replicas(data, tmp_path, monkeypatch):
    """Order and schedule stay; without batch normalization the numbers stay within rounding.

    That they do with a frozen one too is tested step by step.
    """
    changes = {"backbone": "tiny"}
    train.train(make_spec(data, tmp_path / "straight", **changes))
    spec = make_spec(data, tmp_path / "moved", **changes)
    for replicas, stop in ((2, 3), (4, 7)):
        train_until(monkeypatch, spec.changed(replicas=replicas), stop)
    train.train(spec.changed(replicas=1))
    first, second = (tensors(tmp_path / name) for name in ("straight", "moved"))
    for name, value in first.items():
        if np.asarray(value).dtype == np.float32:
            difference = np.linalg.norm(value - second[name])
            assert difference <= 1e-5 * np.linalg.norm(value), name
    scores = [
        json.loads((tmp_path / name / "scores.json").read_text()) for name in ("straight", "moved")
    ]
    for split in scores[0]:
        assert scores[1][split] == pytest.approx(scores[0][split], rel=1e-4)


def test_stopped_just_after_early_stopping(data, tmp_path, monkeypatch):
    # Nothing moves, and an equal F1 is no better one: over after the third epoch.
    changes = {"early_stopping_patience": 2, "learning_rate": 0.0, "lr_schedule": "constant"}
    changes |= {"epochs": 9, "warmup_epochs": 0, "backbone": "tiny"}
    train.train(make_spec(data, tmp_path / "whole", **changes))
    rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 3, "it did stop early"
    spec = make_spec(data, tmp_path / "run", **changes)
    stop_and_continue(monkeypatch, spec, 3 * OF_EPOCH + 1)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_efficientnet_with_its_stochastic_depth(data, tmp_path, monkeypatch):
    changes = {"backbone": "efficientnet_b0", "epochs": 1}
    train.train(make_spec(data, tmp_path / "whole", **changes))
    stop_and_continue(monkeypatch, make_spec(data, tmp_path / "run", **changes), OF_EPOCH + 3)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
