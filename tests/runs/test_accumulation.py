"""A run whose updates are made of parts is the run of the whole batch."""

import numpy as np
import pandas as pd
import pytest

from flowers_tpu.commands import train
from flowers_tpu.runs.spec import Spec, resolve
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from tests.photos import write_data_set
from tests.stopping import train_until
from tests.test_resume import assert_same_run, tensors


def make_spec(data, run_dir, **changes):
    """Everything that happens once per update, and all that is drawn by a photo's place."""
    values = {
        **{"data_dir": str(data), "run_dir": str(run_dir), "image_size": 32, "backbone": "tiny"},
        **{"weights": "none", "warmup_epochs": 1, "epochs": 2, "learning_rate": 1e-2},
        **{"dropout": 0.3, "ema_decay": 0.5, "backbone_rate": 0.5, "clip_norm": 0.5, "l2": 1e-3},
        **{"mixup": 0.3, "cutmix": 1.0, "on_nan": "skip", "steps_per_loop": 1},
        **{"tensorboard": False, "report": False},
    }
    return Spec.of(**(values | changes))


def test_parts_and_the_whole_train_the_same(tmp_path, monkeypatch):
    """Parts on 2 replicas, stopped once, end byte for byte where they do undisturbed."""
    data = write_data_set(tmp_path / "d", train=26, val=9, test=5)
    train.train(make_spec(data, tmp_path / "whole", replicas=1, batch_size_per_replica=8))
    parts = {"replicas": 2, "batch_size_per_replica": 2, "accumulate_steps": 2}
    train.train(make_spec(data, tmp_path / "parts", **parts))
    first, second = (tensors(tmp_path / name) for name in ("whole", "parts"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if np.asarray(value).dtype == np.float32:
            np.testing.assert_allclose(value, second[name], rtol=1e-3, atol=1e-5, err_msg=name)
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "parts")]
    for column in ("step", "loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(*(history[column] for history in histories), rtol=1e-4)

    train_until(monkeypatch, make_spec(data, tmp_path / "stopped", **parts), 7)
    train.train(make_spec(data, tmp_path / "stopped", **parts))
    assert_same_run(tmp_path / "parts", tmp_path / "stopped")


def test_photos_of_a_step_are_those_of_all_parts():
    spec = Spec.of(batch_size_per_replica=4, accumulate_steps=3)
    assert resolve(spec, Facts("CPU", 2)).photos_per_step == 24
    spec = Spec.of(global_batch_size=24, accumulate_steps=3)
    assert resolve(spec, Facts("CPU", 2)).photos_per_step == 24


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"global_batch_size": 16}, "--accumulate_steps=3 does not divide the 8 photos.*of 6"),
        ({"batch_norm": "synchronized"}, "--accumulate_steps=3 and --batch_norm=synchronized"),
    ],
)
def test_what_cannot_be_done_in_parts_is_refused(flags, problem):
    with pytest.raises(RequestError, match=problem):
        resolve(Spec.of(accumulate_steps=3, **flags), Facts("CPU", 2))
