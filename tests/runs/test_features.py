"""A warm-up on features is the warm-up on photos, without the photos."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.data.augment.draws import NAMES, draws_from
from flowers_tpu.runs import features
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import memory
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from tests.photos import write_data_set
from tests.stopping import StopAt, train_until
from tests.test_resume import assert_same_run, tensors

UNAUGMENTED = {
    **{"flip_left_right": False, "flip_up_down": False, "crop_min": 1.0},
    **{"saturation_lower": 1.0, "saturation_upper": 1.0},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=26, val=9, test=5)


def make_spec(data, run_dir, **changes):
    values = {
        **{"data_dir": str(data), "run_dir": str(run_dir), "image_size": 32, "backbone": "tiny"},
        **{"weights": "none", "batch_size_per_replica": 4, "replicas": 2, "dropout": 0.3},
        **{"warmup_epochs": 2, "epochs": 1, "warmup_learning_rate": 1e-2, "ema_decay": 0.5},
        **{"tensorboard": False, "report": False, "warmup_on": "features", "steps_per_loop": 1},
    }
    return Spec.of(**(values | changes))


def test_the_warm_up_is_the_one_on_photos_without_augmentation(data, tmp_path):
    """On another number of replicas; only the rounding of other batches is between them."""
    for name, changes in {
        "photos": {"warmup_on": "photos", "replicas": 1, "batch_size_per_replica": 8},
        "features": {},
    }.items():
        train.train(make_spec(data, tmp_path / name, epochs=0, **UNAUGMENTED, **changes))
    first, second = (tensors(tmp_path / name) for name in ("photos", "features"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if np.asarray(value).dtype == np.float32:
            np.testing.assert_allclose(value, second[name], rtol=1e-4, atol=1e-6, err_msg=name)
    histories = [pd.read_csv(tmp_path / n / "history.csv") for n in ("photos", "features")]
    for column in ("loss", "val_loss", "val_macro_f1"):
        np.testing.assert_allclose(*(history[column] for history in histories), rtol=1e-5)


def test_stopped_in_either_stage(data, tmp_path, monkeypatch):
    train.train(make_spec(data, tmp_path / "whole"))
    spec = make_spec(data, tmp_path / "stopped")
    # Signals are asked for at each of 10 batches of features first.
    for poll in (10 + 2, 10 + 4):
        train_until(monkeypatch, spec, poll)
    train.train(spec)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def recipe_of(data, **facts):
    devices = Devices(tf.distribute.get_strategy(), Facts("CPU", 1, **facts))
    return Recipe.on(devices, make_spec(data, "run"))


def test_mirror_images_come_by_the_draws_of_ever(data):
    recipe = recipe_of(data)
    splits = recipe.load_data().splits
    known = np.arange(26 * 2, dtype=np.float32).reshape(26, 2, 1)
    batches = Feed(recipe, splits).feature_batches(known, 1, 6)
    rows = [batch["image"].numpy()[:, 0] for batch in batches]
    assert len(rows) == 5 and rows[0].shape == (4,)
    drawn = next(draws_from(0, 4).batch(20).as_numpy_iterator())
    mirrored = drawn[:, NAMES.index("flip_left_right")] < 0.5
    np.testing.assert_array_equal(np.concatenate(rows) % 2, mirrored)
    ids = Feed(recipe, splits)
    order = [photo for step in range(1, 6) for photo in ids.ids_of_step(step)]
    numbers = (np.concatenate(rows) // 2).astype(int)
    assert [splits["train"].ids[number] for number in numbers] == order


def test_features_are_those_of_photos_and_mirror_images(data):
    recipe = recipe_of(data)
    feed = Feed(recipe, recipe.load_data().splits)
    classifier = recipe.classifier(3)
    found = features.work_out(feed, classifier, StopAt())
    photos = np.concatenate([b["image"] for b in feed.eval_batches(feed.splits["train"])])[:26]
    for column, images in enumerate((photos, photos[:, :, ::-1])):
        expected = classifier.features(images).numpy()
        np.testing.assert_allclose(found.train[:, column], expected, rtol=1e-5, atol=1e-6)
    photos = np.concatenate([b["image"] for b in feed.eval_batches(feed.splits["val"])])[:9]
    np.testing.assert_allclose(found.val, classifier.features(photos), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_kept_is_refused(data, monkeypatch):
    recipe = recipe_of(data, hosts=2)
    feed = Feed(recipe, recipe.load_data().splits)
    with pytest.raises(RequestError, match=r"--warmup_on=features: .* but 2 hosts"):
        features.work_out(feed, recipe.classifier(3), StopAt())
    recipe = recipe_of(data)
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(RequestError, match=r"--warmup_on=features needs .*--warmup_on=photos"):
        features.work_out(Feed(recipe, feed.splits), recipe.classifier(3), StopAt())
    with pytest.raises(RequestError, match="--warmup_on=features and --warmup_epochs=0"):
        Spec.of(warmup_on="features", warmup_epochs=0)
