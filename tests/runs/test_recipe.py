import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from flowers_tpu import options as config_lib
from flowers_tpu.runs import recipe
from flowers_tpu.options import Config
from flowers_tpu.data import records
from flowers_tpu.data.splits import Split
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from tests.photos import write_data_set

COMPETITION = 12_753  # its training photos


def from_flagfile(path: str) -> Config:
    values = flags.FlagValues()
    config_lib.define_flags(values=values)
    values(["train.py", f"--flagfile={path}"])
    return config_lib.from_flags(values)


def devices(replicas: int, kind: str = "TPU") -> Devices:
    return Devices(tf.distribute.get_strategy(), kind, replicas)


@pytest.mark.parametrize("name", ["notebook_vgg16", "notebook_b6"])
def test_the_notebooks_numbers(name):
    """On 8 replicas: 128 photos a step, 99 steps an epoch, 3 epochs of warm-up, then 20."""
    config = recipe.resolve(from_flagfile(f"scripts/flagfiles/{name}.flags"), devices(8))
    assert (config.global_batch_size, config.image_size, config.seed) == (128, 512, 0)
    assert (config.early_stopping_patience, config.precision) == (5, "bfloat16")
    split = Split(
        "train", (), np.arange(COMPETITION).astype(str), np.zeros(COMPETITION, np.int32)
    )
    names = tuple(str(n) for n in range(104))
    plan = recipe.make_plan(config, recipe.Data("", names, {"train": split}))
    assert (plan.steps_per_epoch, plan.warmup_epochs, plan.epochs) == (99, 3, 20)
    by_epoch = plan.rates.reshape(23, 99)
    assert (by_epoch == by_epoch[:, :1]).all(), "a staircase"
    by_hand = [
        *[8e-4] * 3,  # warm-up: 1e-4 * 8
        1e-8,
        8.00066666667e-5,  # 1e-8 + (2.4e-4 - 1e-8) / 3
        1.60003333333e-4,
        2.4e-4,  # 3e-5 * 8
        1.922e-4,  # 1e-6 + 2.39e-4 * 0.8
        1.5396e-4,
        1.23368e-4,
        9.88944e-5,
        7.931552e-5,
        6.3652416e-5,
        5.11219328e-5,
        4.109754624e-5,
        3.307803699e-5,
        2.666242959e-5,
        2.152994367e-5,
        1.742395494e-5,
        1.413916395e-5,
        1.151133116e-5,
        9.409064929e-6,
        7.727251943e-6,
    ]
    np.testing.assert_allclose(by_epoch[:, 0], by_hand, rtol=1e-6)


@pytest.mark.parametrize("name", ["quickstart", "oxford102", "notebook_vgg16", "notebook_b6"])
def test_every_flagfile_is_valid_and_says_what_it_gives(name):
    path = f"scripts/flagfiles/{name}.flags"
    config = recipe.resolve(from_flagfile(path), devices(1, "CPU"))
    assert len(recipe.learning_rates(config, 10)) == (config.warmup_epochs + config.epochs) * 10
    with open(path) as file:
        assert f"scripts/train.py --tpu=local --flagfile={path}" in file.read()


def test_resolve():
    config = Config(batch_size_per_replica=8)
    on_tpu = recipe.resolve(config, devices(8))
    assert (on_tpu.global_batch_size, on_tpu.precision) == (64, "bfloat16")
    on_cpu = recipe.resolve(config, devices(2, "CPU"))
    assert (on_cpu.global_batch_size, on_cpu.precision) == (16, "float32")
    given = recipe.resolve(Config(global_batch_size=24), devices(3))
    assert (given.global_batch_size, given.batch_size_per_replica) == (24, 8)
    with pytest.raises(
        RequestError, match="--global_batch_size=24: is not divisible by 5 replicas"
    ):
        recipe.resolve(Config(global_batch_size=24), devices(5))


@pytest.mark.parametrize(("kind", "where"), [("CPU", "host"), ("GPU", "device"), ("TPU", "device")])
def test_photos_are_augmented_where_that_is_fastest(kind, where):
    assert recipe.resolve(Config(), devices(2, kind)).augment_on == where
    for given in ("host", "device"):
        assert recipe.resolve(Config(augment_on=given), devices(2, kind)).augment_on == given


def test_fewer_photos_than_a_batch(tmp_path):
    write_data_set(tmp_path, train=7)
    config = recipe.resolve(
        Config(data_dir=str(tmp_path), image_size=32, batch_size_per_replica=8), devices(1)
    )
    data = recipe.load_data(config)
    with pytest.raises(RequestError, match="7 photos, fewer than the global batch of 8"):
        recipe.make_plan(config, data)


def test_balanced_class_weights_come_from_the_labels(tmp_path):
    write_data_set(tmp_path, train=30)
    config = Config(data_dir=str(tmp_path), image_size=32, class_weights="balanced")
    config = recipe.resolve(config, devices(1))
    data = recipe.load_data(config)
    weights = recipe.make_plan(config, data).objective.class_weights
    counts = np.bincount(data.splits["train"].labels, minlength=3)
    np.testing.assert_allclose(weights, 30 / (3 * counts), rtol=1e-6)


def test_class_names(tmp_path):
    write_data_set(tmp_path)
    config = Config(data_dir=str(tmp_path), image_size=32)
    assert recipe.load_data(config).class_names == ("class 0", "class 1", "class 2")
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(RequestError, match=r"train.*label 2, expected 0 to 1"):
        recipe.load_data(dataclasses.replace(config, classes=str(tmp_path / "two.txt")))
    (tmp_path / "classes.txt").unlink()
    names = recipe.load_data(config).class_names
    assert len(names) == 104 and names[0] == "pink primrose"


def test_the_optimizers_take_the_rate_of_the_step(tmp_path):
    write_data_set(tmp_path)
    config = recipe.resolve(
        Config(
            data_dir=str(tmp_path),
            image_size=32,
            backbone="small_cnn",
            weights="none",
            batch_size_per_replica=8,
            lr_granularity="step",
        ),
        devices(1, "CPU"),
    )
    plan = recipe.make_plan(config, recipe.load_data(config))
    state = recipe.make_state(config, tf.distribute.get_strategy(), plan)
    for step in (0, 8, 9, 14, len(plan.rates) - 1):
        state.step.assign(step)
        for optimizer in (state.warmup_optimizer, state.finetune_optimizer):
            assert float(optimizer._get_hyper("learning_rate")) == plan.rates[step]
