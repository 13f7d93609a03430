import os
import resource
import signal

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.system.errors import RunError
from flowers_tpu.training import metrics, multistep, optimizers, steps
from flowers_tpu.training.checkpoints import Checkpoints, restore_best_weights
from flowers_tpu.training.options import TrainingOptions
from flowers_tpu.training.state import Progress, TrainState, step_counter
from tests.photos import batch, linear_classifier, small_classifier

pytestmark = pytest.mark.core

CLASSES = 3


def make_state(strategy, *, backbone="small_cnn", name="adam", seed=0, num_classes=CLASSES):
    with strategy.scope():
        if backbone == "linear":
            classifier = linear_classifier(num_classes, size=32, seed=seed)
        else:
            classifier = small_classifier(num_classes, backbone=backbone, dropout=0.3, seed=seed)
        step = step_counter()
        warmup, finetune = (
            optimizers.make_optimizer(
                TrainingOptions(optimizer=name), lambda: tf.constant(0.01), variables
            )
            for variables in (
                classifier.head.trainable_variables,
                classifier.model.trainable_variables,
            )
        )
    return TrainState(classifier, warmup, finetune, step, Progress(metrics.empty(num_classes)))


def trainer(strategy, state):
    """Gives `train(first, count)`, which trains on batches by number."""
    objective = steps.Objective(TrainingOptions(), 6)
    function = multistep.compile_train_steps(strategy, state, "finetune", objective)

    def train(first, count):
        arrays = [batch(6, CLASSES, side=32, seed=first + number) for number in range(count)]
        stacked = {key: np.concatenate([a[key] for a in arrays]) for key in arrays[0]}
        local = 6 // strategy.num_replicas_in_sync
        dataset = tf.data.Dataset.from_tensor_slices(stacked).batch(local, drop_remainder=True)
        iterator = iter(strategy.distribute_datasets_from_function(lambda context: dataset))
        outcomes, *_ = function(iterator, tf.constant(count))
        state.progress.sums = metrics.added(state.progress.sums, np.concatenate(outcomes))

    return train


def everything(state):
    variables = [
        *state.classifier.model.variables,
        *state.finetune_optimizer.variables(),
        *state.warmup_optimizer.variables(),
        state.step,
    ]
    return [v.numpy() for v in variables] + list(state.progress.sums.values())


@pytest.mark.parametrize(
    ("replicas", "backbone", "name"),
    [
        (3, "small_cnn", "adam"),
        (1, "linear", "adam"),
        *((2, "linear", name) for name in ("sgd", "adamw", "lamb", "radam", "novograd")),
    ],
)
def test_a_restored_state_goes_on_bit_for_bit(tmp_path, make_strategy, replicas, backbone, name):
    """Batch normalization, dropout and slots; on 3 replicas, whose mean is not exact."""
    strategy = make_strategy(replicas)
    straight = make_state(strategy, backbone=backbone, name=name)
    train = trainer(strategy, straight)
    train(0, 3)
    straight.progress.history.append({"epoch": 1, "val_loss": 0.1 + 0.2, "kept": True})
    Checkpoints(str(tmp_path), straight).save_latest()
    train(3, 3)

    resumed = make_state(strategy, backbone=backbone, name=name, seed=1)
    assert Checkpoints(str(tmp_path), resumed).restore_latest()
    assert resumed.progress.history == [{"epoch": 1, "val_loss": 0.1 + 0.2, "kept": True}]
    assert resumed.step.numpy() == 3
    trainer(strategy, resumed)(3, 3)
    for a, b in zip(everything(straight), everything(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_moves_to_another_number_of_replicas(tmp_path, make_strategy):
    state = make_state(make_strategy(2))
    trainer(make_strategy(2), state)(0, 2)
    Checkpoints(str(tmp_path), state).save_latest()
    for replicas in (1, 3):
        other = make_state(make_strategy(replicas), seed=1)
        Checkpoints(str(tmp_path), other).restore_latest()
        for a, b in zip(everything(state), everything(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_best_weights_come_back(tmp_path, make_strategy):
    state = make_state(make_strategy(1))
    checkpoints = Checkpoints(str(tmp_path), state)
    with pytest.raises(RunError, match="ckpt-4: is not there, but the history says"):
        checkpoints.restore_best(epoch=4)
    assert not checkpoints.restore_latest()
    best = [v.numpy() for v in state.classifier.model.variables]
    checkpoints.save_best(epoch=4)
    trainer(make_strategy(1), state)(0, 2)
    assert not np.array_equal(best[0], state.classifier.model.variables[0])
    checkpoints.save_best(epoch=5)  # of an epoch that the history does not have
    other = make_state(make_strategy(1), seed=5)
    restore_best_weights(str(tmp_path / "best"), other.classifier, epoch=4)
    checkpoints.restore_best(epoch=4)
    for classifier in (state.classifier, other.classifier):
        for a, b in zip(best, classifier.model.variables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, make_strategy):
    Checkpoints(str(tmp_path), make_state(make_strategy(1))).save_latest()
    other = make_state(make_strategy(1), num_classes=CLASSES + 1)
    with pytest.raises(RunError, match="ckpt-1: this checkpoint belongs to another model"):
        Checkpoints(str(tmp_path), other).restore_latest()
    other = make_state(make_strategy(1), name="sgd")
    with pytest.raises(RunError, match="belongs to another"):
        Checkpoints(str(tmp_path), other).restore_latest()


def damage_truncate(folder):
    path = next(folder.glob("ckpt-2.data*"))
    os.truncate(path, path.stat().st_size // 2)


def damage_flip(folder):
    path = next(folder.glob("ckpt-2.data*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def damage_lose_data(folder):
    next(folder.glob("ckpt-2.data*")).unlink()


def damage_lose_index(folder):
    (folder / "ckpt-2.index").unlink()


def damage_empty_index(folder):
    (folder / "ckpt-2.index").write_bytes(b"")


DAMAGES = (damage_truncate, damage_flip, damage_lose_data, damage_lose_index, damage_empty_index)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, make_strategy, damage, caplog
):
    state = linear_state(make_strategy(1))
    checkpoints = Checkpoints(str(tmp_path), state)
    state.step.assign(10)
    checkpoints.save_latest()
    state.step.assign(20)
    checkpoints.save_latest()
    damage(tmp_path / "latest")
    other = linear_state(make_strategy(1))
    assert Checkpoints(str(tmp_path), other).restore_latest()
    assert other.step.numpy() == 10
    assert "latest/ckpt-2 is damaged" in caplog.text

    for path in (tmp_path / "latest").glob("ckpt-1.data*"):
        os.truncate(path, 3)
    with pytest.raises(RunError, match=r"no checkpoint is sound: .*ckpt-2.*ckpt-1"):
        Checkpoints(str(tmp_path), other).restore_latest()


def test_an_empty_checkpoint_file_hides_nothing(tmp_path, make_strategy):
    state = linear_state(make_strategy(1))
    state.step.assign(7)
    Checkpoints(str(tmp_path), state).save_latest()
    (tmp_path / "latest" / "checkpoint").write_bytes(b"")
    other = linear_state(make_strategy(1))
    checkpoints = Checkpoints(str(tmp_path), other)
    assert checkpoints.restore_latest()
    assert other.step.numpy() == 7
    other.step.assign(8)
    checkpoints.save_latest()
    assert checkpoints.restore_latest()
    assert other.step.numpy() == 8


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, make_strategy):
    state = linear_state(make_strategy(1))
    checkpoints = Checkpoints(str(tmp_path), state)
    state.step.assign(10)
    checkpoints.save_latest()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        state.step.assign(20)
        with pytest.raises(RunError, match=r"cannot save a checkpoint .*earlier ones are intact"):
            checkpoints.save_latest()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    other = linear_state(make_strategy(1))
    assert Checkpoints(str(tmp_path), other).restore_latest()
    assert other.step.numpy() == 10
    checkpoints.save_latest()  # once there is room again
    assert Checkpoints(str(tmp_path), other).restore_latest()
    assert other.step.numpy() == 20


def test_a_folder_that_cannot_be_written(tmp_path, make_strategy):
    checkpoints = Checkpoints(str(tmp_path), linear_state(make_strategy(1)))
    (tmp_path / "latest").write_text("a file in place of the folder")
    with pytest.raises(RunError, match=r"latest: cannot save a checkpoint"):
        checkpoints.save_latest()


def linear_state(strategy):
    return make_state(strategy, backbone="linear")
