"""Machines with GPUs, none of which is here: their facts, with CPU replicas in their place.

What is true of a GPU itself (its kernels, its memory, its speed) no test here can say.
"""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.commands import train
from flowers_tpu.data import pipeline, source
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import devices as devices_lib
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.facts import Facts, Listed
from flowers_tpu.training import loss_scale, multistep
from tests.calling import call
from tests.photos import write_data_set

CPU = Listed("CPU")
T4, A100 = Listed("GPU", (7, 5), 15 * 2**30), Listed("GPU", (8, 0), 40 * 2**30)
H100 = Listed("GPU", (9, 0), 80 * 2**30)

# What is listed, and what comes of it: strategy, replicas, precision, jit, whether batches are
# fetched ahead, where photos are augmented, and the plan's line.
MACHINES = {
    "one T4": (
        [CPU, T4],
        ("MirroredStrategy", 1, "float16", True, True, "device"),
        "1 GPU replica, global batch 8, float16 (compute capability 7.5; bfloat16 comes with 8.0), "
        "compiled by XLA",
    ),
    "two T4": (
        [CPU, T4, T4],
        ("MirroredStrategy", 2, "float16", True, True, "device"),
        "2 GPU replicas, global batch 16, float16 (compute capability 7.5; bfloat16 comes with "
        "8.0), compiled by XLA",
    ),
    "one A100": (
        [CPU, A100],
        ("MirroredStrategy", 1, "bfloat16", True, True, "device"),
        "1 GPU replica, global batch 8, bfloat16 (compute capability 8.0), compiled by XLA",
    ),
    "eight H100": (
        [CPU] + 8 * [H100],
        ("MirroredStrategy", 8, "bfloat16", True, True, "device"),
        "8 GPU replicas, global batch 64, bfloat16 (compute capability 9.0), compiled by XLA",
    ),
    "CPU only": (
        [CPU],
        ("default", 1, "float32", False, False, "host"),
        "1 CPU replica, global batch 8, float32",
    ),
    "TPU": (
        [CPU],
        ("TPUStrategy", 8, "bfloat16", False, True, "device"),
        "8 TPU replicas, global batch 64, bfloat16 (which a TPU multiplies)",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("gpus") / "d", train=64, val=8, test=3)


@pytest.fixture
def machine(monkeypatch, make_strategy):
    """Gives a function that makes this machine another, by what it lists; returns its strategies.

    They are of CPU replicas, by the names of those that TensorFlow would have been asked for.
    """

    def become(listed):
        gpus = sum(device.kind == "GPU" for device in listed)
        mirrored, on_tpu = make_strategy(gpus or 1), make_strategy(8)
        monkeypatch.setattr(type(on_tpu.extended), "num_hosts", 1, raising=False)
        monkeypatch.setattr(devices_lib, "_listed", lambda: listed)
        monkeypatch.setattr(devices_lib, "_connect_to_tpu", lambda tpu: on_tpu)
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: mirrored)
        return {
            "MirroredStrategy": mirrored,
            "TPUStrategy": on_tpu,
            "default": tf.distribute.get_strategy(),
        }

    return become


@pytest.mark.parametrize("name", MACHINES)
def test_what_each_machine_comes_to(machine, folder, name, capsys):
    listed, (strategy, *expected), line = MACHINES[name]
    strategies = machine(listed)
    spec = Spec.of(
        data_dir=str(folder), tpu="local" if name == "TPU" else "", batch_size_per_replica=8,
        image_size=32, backbone="tiny", weights="none", run_dir="there",
    )  # fmt: skip
    recipe = Recipe.choose(spec)
    data = recipe.load_data()
    feed, plan = Feed(recipe, data.splits), recipe.plan(data)
    assert recipe.strategy is strategies[strategy]
    options = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(recipe.strategy),
            "distribute_datasets_from_function",
            lambda self, function, given: options.append(given),
        )
        pipeline.distribute(recipe.strategy, None, fetches_ahead=recipe.facts.fetches_ahead)
    # Without options, which is for devices that have memory of their own, TensorFlow fetches.
    ahead = options == [None] and strategy != "default"
    assert [
        *(recipe.strategy.num_replicas_in_sync, recipe.resolved.arithmetic, plan.objective.jit),
        *(ahead, recipe.resolved.augments_on),
    ] == expected
    state = recipe.state(plan)
    assert (state.loss_scale is not None) == (recipe.resolved.arithmetic == "float16")
    train.print_plan(recipe, feed, plan, state)
    assert f"     devices  {line}\n" in capsys.readouterr().out


def test_what_is_given_needs_no_reason(machine, folder):
    machine([CPU, T4])
    flags = {"data_dir": str(folder), "image_size": 32, "batch_size_per_replica": 8}
    recipe = Recipe.choose(Spec.of(**flags, precision="float32", jit="off"))
    assert train.arithmetic_words(recipe, recipe.plan(recipe.load_data())) == "float32"


FLAGS = {
    **{"backbone": "small_cnn", "weights": "none", "image_size": 32, "global_batch_size": 8},
    **{"warmup_epochs": 1, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.001},
    **{"warmup_learning_rate": 0.001, "lr_schedule": "constant", "steps_per_loop": 1},
    **{"dropout": 0.3, "tensorboard": False, "report": False, "crop_min": 0.5, "zoom": 0.2},
}


def losses_of(folder, devices, steps, **flags):
    """The losses of the first steps of fine-tuning, and what the first batch looked like."""
    recipe = Recipe.on(devices, Spec.of(data_dir=str(folder), **FLAGS | flags))
    data = recipe.load_data()
    feed, plan = Feed(recipe, data.splits), recipe.plan(data)
    state = recipe.state(plan)
    train_steps = multistep.compile_train_steps(
        recipe.strategy, state, "finetune", plan.objective, feed.prepare
    )
    outcomes = train_steps(iter(feed.train_batches(0, steps)), tf.constant(steps)).outcomes
    return outcomes.numpy()


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_steps_that_xla_compiles_train_as_others_do(folder, make_strategy, replicas):
    """The same rows, in the same order, to 1e-5 a step: crops and masks are identical then."""
    devices = Devices(make_strategy(replicas), Facts("GPU", replicas))
    plain, compiled = (
        losses_of(folder, devices, 6, jit=jit, augment_on="device") for jit in ("off", "on")
    )
    names = ("label", "predicted", "top5", "weight", "loss")
    np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-5, err_msg=f"{names}")


def test_a_run_on_two_t4(machine, folder, tmp_path):
    """Float16, compiled, photos augmented on the device: trained and scored."""
    machine([CPU, T4, T4])
    run = tmp_path / "run"
    flags = [
        f"--{name}={value}" if not isinstance(value, bool) else f"--{'' if value else 'no'}{name}"
        for name, value in FLAGS.items()
    ]
    common = [
        f"--data_dir={folder}",
        *flags,
        "--backbone=tiny",
        "--ema_decay=0.5",
        "--warmup_epochs=0",
    ]
    assert call("train", *common, f"--run_dir={run}") == 0
    history = pd.read_csv(run / "history.csv")
    assert (history["skipped_steps"] < 8).all()
    assert np.isfinite(history[["loss", "val_loss"]]).all().all()
    assert call("evaluate", f"--run_dir={run}") == 0


def test_a_run_whose_scale_is_too_large_leaves_steps_out_and_counts_them(
    machine, folder, tmp_path, monkeypatch
):
    machine([CPU, T4])
    monkeypatch.setattr(loss_scale, "_FIRST", 2.0**18)
    run = tmp_path / "run"
    flags = [f"--{name}={value}" for name, value in FLAGS.items() if not isinstance(value, bool)]
    command = [*flags, "--jit=off", "--noreport", "--notensorboard", "--warmup_epochs=0"]
    assert call("train", f"--data_dir={folder}", f"--run_dir={run}", *command) == 0
    (row,) = pd.read_csv(run / "history.csv").to_dict("records")
    assert 0 < row["skipped_steps"] < 8
    assert np.isfinite(row["loss"])


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_a_cache_is_kept_in_the_hosts_memory(folder, cache):
    """Made under the scope of another device, as a strategy's on a GPU is."""
    recipe = Recipe.choose(Spec.of(data_dir=str(folder), image_size=32, backbone="tiny"))
    data = recipe.load_data()
    made = []
    with pytest.MonkeyPatch.context() as patch, tf.device("CPU:1"):
        kept = source._Kept.__init__

        def noting(self, *arguments):
            kept(self, *arguments)
            made.append(self._list.device)

        patch.setattr(source._Kept, "__init__", noting)
        feed = Feed(recipe.changed(cache=cache), data.splits)
        found = feed.train_source
        batches = pipeline.eval_dataset(found, global_batch_size=8, local_batch_size=8)
        assert next(iter(batches))["image"].shape == (8, 32, 32, 3)
    assert made and all(device.endswith("CPU:0") for device in made)
