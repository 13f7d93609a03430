from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags

from flowers_tpu.commands import flags
from flowers_tpu.data.splits import Split
from flowers_tpu.runs import recipe as recipe_lib
from flowers_tpu.runs.recipe import Data, Recipe, check_places
from flowers_tpu.runs.spec import PARTS, Resolved, Spec
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from tests.calling import call
from tests.photos import write_data_set

COMPETITION = 12_753  # its training photos


def from_flagfile(path: str) -> Spec:
    values = absl_flags.FlagValues()
    flags.define(PARTS.values(), values)
    values(["train", f"--flagfile={path}"])
    return Spec.of(**flags.read(PARTS.values(), values))


def recipe_on(replicas: int, spec: Spec, kind: str = "TPU", **given) -> Recipe:
    return Recipe.on(Devices(tf.distribute.get_strategy(), Facts(kind, replicas)), spec, **given)


def small(folder, **flags) -> Spec:
    return Spec.of(data_dir=str(folder), image_size=32, **flags)


@pytest.mark.parametrize("name", ["notebook_vgg16", "notebook_b6"])
def test_the_notebooks_numbers(name):
    """On 8 replicas: 128 photos a step, 99 steps an epoch, 3 epochs of warm-up, then 20."""
    recipe = recipe_on(8, from_flagfile(f"scripts/flagfiles/{name}.flags"))
    spec, resolved = recipe.spec, recipe.resolved
    assert (resolved.photos_per_step, resolved.arithmetic) == (128, "bfloat16")
    assert (spec.data.image_size, spec.training.seed) == (512, 0)
    assert spec.training.early_stopping_patience == 5
    split = Split("train", (), np.arange(COMPETITION).astype(str), np.zeros(COMPETITION, np.int32))
    names = tuple(str(n) for n in range(104))
    plan = recipe.plan(Data("", names, {"train": split}))
    assert (plan.steps_per_epoch, plan.photos_per_step, plan.num_classes) == (99, 128, 104)
    assert (plan.schedule.warmup_epochs, plan.schedule.epochs) == (3, 20)
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


FLAGFILES = sorted(path.stem for path in Path("scripts/flagfiles").glob("*.flags"))


@pytest.mark.parametrize("name", FLAGFILES)
def test_every_flagfile_is_valid_and_says_what_it_gives(name):
    path = f"scripts/flagfiles/{name}.flags"
    recipe = recipe_on(1, from_flagfile(path), "CPU")
    assert len(recipe.learning_rates(10)) == recipe.spec.schedule.total_epochs * 10
    with open(path) as file:
        assert f"scripts/train.py --tpu=local --flagfile={path}" in file.read()


def test_a_recipe_is_resolved_on_its_devices():
    recipe = recipe_on(8, Spec.of(batch_size_per_replica=8))
    assert recipe.resolved == Resolved(64, "bfloat16", "device")
    assert (recipe.photos_per_replica, str(recipe.facts)) == (8, "8 TPU replicas")
    changed = recipe.changed(global_batch_size=24, augment_on="host")
    assert changed.devices is recipe.devices
    assert changed.resolved == Resolved(24, "bfloat16", "host")
    assert changed.photos_per_replica == 3
    with pytest.raises(RequestError, match="is not divisible by 8 replicas"):
        recipe.changed(global_batch_size=12)
    begun = recipe_on(2, recipe.spec, "CPU", begun=recipe.resolved)
    assert begun.resolved == recipe.resolved and begun.photos_per_replica == 32


def test_fewer_photos_than_a_batch(tmp_path):
    write_data_set(tmp_path, train=7)
    recipe = recipe_on(1, small(tmp_path, batch_size_per_replica=8))
    with pytest.raises(RequestError, match="7 photos, fewer than the global batch of 8"):
        recipe.plan(recipe.load_data())


def test_balanced_class_weights_come_from_the_labels(tmp_path):
    write_data_set(tmp_path, train=30)
    recipe = recipe_on(1, small(tmp_path, class_weights="balanced"))
    data = recipe.load_data()
    weights = recipe.plan(data).objective.class_weights
    counts = np.bincount(data.splits["train"].labels, minlength=3)
    np.testing.assert_allclose(weights, 30 / (3 * counts), rtol=1e-6)
    assert recipe.changed(class_weights="none").plan(data).objective.class_weights is None


def test_class_names(tmp_path):
    write_data_set(tmp_path)
    recipe = recipe_on(1, small(tmp_path))
    assert recipe.load_data().class_names == ("class 0", "class 1", "class 2")
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(RequestError, match=r"train.*label 2, expected 0 to 1"):
        recipe.changed(classes=str(tmp_path / "two.txt")).load_data()
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(RequestError, match=r"no classes.txt, and its labels are 0 to 2, not the"):
        recipe.load_data()


def test_the_competition_s_photos_need_no_names(tmp_path):
    write_data_set(tmp_path, train=500, num_classes=104, size=8)
    (tmp_path / "classes.txt").unlink()
    names = recipe_on(1, Spec.of(data_dir=str(tmp_path), image_size=8)).load_data().class_names
    assert len(names) == 104 and names[0] == "pink primrose"


def test_the_optimizers_take_the_rate_of_the_step(tmp_path):
    write_data_set(tmp_path)
    spec = small(
        tmp_path,
        backbone="small_cnn",
        weights="none",
        batch_size_per_replica=8,
        lr_granularity="step",
    )
    recipe = recipe_on(1, spec, "CPU")
    plan = recipe.plan(recipe.load_data())
    state = recipe.state(plan)
    for step in (0, 8, 9, 14, len(plan.rates) - 1):
        state.step.assign(step)
        for optimizer in (state.warmup_optimizer, state.finetune_optimizer):
            assert float(optimizer._get_hyper("learning_rate")) == plan.rates[step]


@pytest.mark.parametrize("tpu", ["flowers", "grpc://10.0.0.2:8470"])
@pytest.mark.parametrize(
    ("places", "named"),
    [
        (
            {"data_dir": "d", "run_dir": "gs://b/r"},
            "--data_dir=d: is on this machine, where --",
        ),
        ({"data_dir": "example", "run_dir": "gs://b/r"}, "--data_dir=example: is on this machine"),
        ({"data_dir": "gs://b/d", "run_dir": "/runs/r"}, "--run_dir=/runs/r: is on this machine"),
    ],
)
def test_a_tpu_elsewhere_cannot_see_this_machine(monkeypatch, tmp_path, capsys, tpu, places, named):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(recipe_lib, "choose_devices", asked.append)
    flags = [f"--{name}={value}" for name, value in places.items()]
    assert call("train", f"--tpu={tpu}", "--backbone=tiny", *flags) == 2
    assert f"train: {named}" in capsys.readouterr().err
    assert not asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize("tpu", ["", "local", "grpc://localhost:8470"])
def test_a_tpu_here_can(tpu):
    check_places(Spec.of(tpu=tpu, data_dir="d", run_dir="r"))
    check_places(Spec.of(tpu="flowers", data_dir="gs://d", run_dir="gs://r"))
