"""A run that is interrupted anywhere ends bit for bit where an uninterrupted one does."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.options import Config
from flowers_tpu.runs.folder import RunDirectory
from flowers_tpu.system.errors import StoppedError
from tests.photos import write_data_set

WRITTEN = ("history.csv", "submission.csv", "predictions_val.csv", "scores.json")


class StopAt:
    """Stands in for `Interruption`: a signal comes before the n-th poll."""

    polls = 0
    stop_at = None

    def __enter__(self):
        type(self).polls = 0
        return self

    def __exit__(self, *_):
        pass

    @property
    def requested(self):
        type(self).polls += 1
        return self.stop_at is not None and self.polls >= self.stop_at

    def check(self):
        if self.requested:
            raise StoppedError("stopped")


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


def make_config(data, run_dir, **changes):
    """Two stages, batch normalization on 2 replicas, dropout, and every augmentation."""
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
        "steps_per_loop": 1,
        "report": False,
    }
    return Config(**(values | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=9, test=5)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train.train(make_config(data, run_dir))
    return run_dir


def stop_and_continue(monkeypatch, config, *stops):
    """Runs until the given polls, one after the other, then to the end."""
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    for stop in stops:
        monkeypatch.setattr(StopAt, "stop_at", stop)
        with pytest.raises(StoppedError):
            train.train(config)
    monkeypatch.setattr(StopAt, "stop_at", None)
    train.train(config)


def test_two_runs_of_one_seed_are_the_same(whole, data, tmp_path):
    """Also with other steps per call, and with checkpoints within epochs."""
    config = make_config(data, tmp_path / "run", steps_per_loop=0, checkpoint_every_steps=2)
    train.train(config)
    assert_same_run(whole, tmp_path / "run")


# Polls of an uninterrupted run: each of the 9 steps, 2 batches of each of the 3 validations, and
# one for each batch of the final predictions (test, train and val: 1, 4 and 2 batches).
POLLS = 9 + 3 * 2 + 1 + 4 + 2
IN_PLACES = {
    "warm-up": 2,
    "validation at the change of stage": 4,
    "fine-tuning": 7,
    "last validation": 15,
    "final prediction": 18,
}


def test_the_polls_are_where_they_are_thought_to_be(whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    train.train(make_config(data, tmp_path / "run"))
    assert StopAt.polls == POLLS


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[pytest.mark.core] if place == "fine-tuning" else [])
        for place in IN_PLACES
    ],
)
def test_stopped_in(whole, data, tmp_path, monkeypatch, place):
    stop_and_continue(monkeypatch, make_config(data, tmp_path / "run"), IN_PLACES[place])
    assert_same_run(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def whole_on_device(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "on_device"
    train.train(make_config(data, run_dir, augment_on="device"))
    return run_dir


def test_where_photos_are_augmented_makes_hardly_any_difference(whole, whole_on_device):
    """A few pixels may be rounded otherwise; that is all."""
    routes = [RunDirectory(str(d)).read_configs()[1].augment_on for d in (whole, whole_on_device)]
    assert routes == ["host", "device"]
    on_host, on_device = (pd.read_csv(d / "history.csv") for d in (whole, whole_on_device))
    assert on_host.columns.tolist() == on_device.columns.tolist()
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(on_host[name], on_device[name], rtol=0.01)


@pytest.mark.parametrize("route", ["host", "device"])
def test_the_cache_may_change_between_stops(
    whole, whole_on_device, data, tmp_path, monkeypatch, route
):
    """Also that a run whose photos are augmented on the device continues bit for bit."""
    config = make_config(
        data, tmp_path / "run", augment_on="device" if route == "device" else "auto"
    )
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    for cache, stop in (("none", 3), ("records", 4)):
        monkeypatch.setattr(StopAt, "stop_at", stop)
        with pytest.raises(StoppedError):
            train.train(dataclasses.replace(config, cache=cache))
    monkeypatch.setattr(StopAt, "stop_at", None)
    train.train(dataclasses.replace(config, cache="pixels"))
    assert_same_run(whole if route == "host" else whole_on_device, tmp_path / "run")


@pytest.mark.slow
def test_stopped_anywhere(whole, data, tmp_path, monkeypatch):
    for poll in range(1, POLLS + 1):
        run_dir = tmp_path / str(poll)
        stop_and_continue(monkeypatch, make_config(data, run_dir), poll)
        assert_same_run(whole, run_dir)


def test_stopped_twice_and_continued_on_other_replicas(whole, data, tmp_path, monkeypatch):
    """Order and schedule stay; with frozen batch normalization the numbers stay within rounding."""
    changes = {"batch_norm": "frozen"}
    train.train(make_config(data, tmp_path / "straight", **changes))
    config = make_config(data, tmp_path / "moved", **changes)
    monkeypatch.setattr(experiment, "Interruption", StopAt)
    for replicas, stop in ((2, 3), (4, 4)):
        monkeypatch.setattr(StopAt, "stop_at", stop)
        with pytest.raises(StoppedError):
            train.train(dataclasses.replace(config, replicas=replicas))
    monkeypatch.setattr(StopAt, "stop_at", None)
    train.train(dataclasses.replace(config, replicas=1))
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
    # Nothing moves, and an equal loss is no better one: over after the third epoch.
    changes = {"early_stopping_patience": 2, "learning_rate": 0.0, "lr_schedule": "constant"}
    changes |= {"epochs": 9, "warmup_epochs": 0, "batch_norm": "frozen"}
    train.train(make_config(data, tmp_path / "whole", **changes))
    rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 3, "it did stop early"
    config = make_config(data, tmp_path / "run", **changes)
    stop_and_continue(monkeypatch, config, 3 * (3 + 2) + 1)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_efficientnet_with_its_stochastic_depth(data, tmp_path, monkeypatch):
    changes = {"backbone": "efficientnet_b0", "epochs": 1}
    train.train(make_config(data, tmp_path / "whole", **changes))
    stop_and_continue(monkeypatch, make_config(data, tmp_path / "run", **changes), 7)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
