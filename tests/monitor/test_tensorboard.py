"""Event files, read back as TensorBoard reads them."""

import itertools
import math
import os
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.summary.writer import event_file_writer
from tensorboard.util import tensor_util

from flowers_tpu.monitor import tensorboard as board_lib
from flowers_tpu.monitor.tensorboard import Board
from flowers_tpu.reports import style
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.training.calls import Call


@pytest.fixture(autouse=True)
def _one_second_per_file(monkeypatch):
    """Names of event files begin with the second, and tests open several within one."""
    seconds = itertools.count(1_700_000_000)
    clock = types.SimpleNamespace(time=lambda: next(seconds))
    monkeypatch.setattr(event_file_writer, "time", clock)


def shown(folder, split):
    """What TensorBoard shows of a split: {tag: {step: value}}, and that no step is there twice."""
    read = plugin_event_accumulator.EventAccumulator(
        str(folder / split), tensor_size_guidance=dict.fromkeys(("scalars", "images", "text"), 0)
    ).Reload()
    result = {}
    for tag in read.Tags()["tensors"]:
        events = read.Tensors(tag)
        steps = [event.step for event in events]
        assert steps == sorted(set(steps)), (tag, steps)
        values = (tensor_util.make_ndarray(event.tensor_proto) for event in events)
        result[tag] = dict(zip(steps, values, strict=True))
    return result


def row(epoch, loss, val_loss):
    return {
        "epoch": epoch,
        "stage": "finetune",
        "step": 10 * epoch,
        "learning_rate": 0.5 / epoch,
        "loss": loss,
        "accuracy": 0.25 * epoch,
        "val_loss": val_loss,
        "val_accuracy": 0.125 * epoch,
        "skipped_steps": 0,
    }


def times(epoch):
    return {
        "epoch": epoch,
        "train_seconds": 2.0,
        "train_images_per_second": 100.0 * epoch,
        "val_images_per_second": 1000.0 * epoch,
    }


def call(step, loss=1.0, images_per_second=64.0):
    return Call(step, 0.25, loss, 2.0, images_per_second)


def test_an_epoch_is_shown_with_all_its_values(tmp_path):
    with Board(str(tmp_path), 0) as board:
        board.begin({}, [], {})
        board.add_epoch(row(1, 0.5, 0.75), times(1))
        board.add_epoch(row(2, 0.25, 0.5), times(2))
    assert shown(tmp_path, "val") == {
        "epoch/loss": {10: 0.75, 20: 0.5},
        "epoch/accuracy": {10: 0.125, 20: 0.25},
        "epoch/images_per_second": {10: 1000, 20: 2000},
    }
    train = shown(tmp_path, "train")
    del train["configuration"]
    assert train == {
        "epoch/loss": {10: 0.5, 20: 0.25},
        "epoch/accuracy": {10: 0.25, 20: 0.5},
        "epoch/learning_rate": {10: 0.5, 20: 0.25},
        "epoch/images_per_second": {10: 100, 20: 200},
    }


def test_calls_are_shown_but_for_what_is_not_known(tmp_path):
    with Board(str(tmp_path), 0) as board:
        board.add_call(call(3, images_per_second=math.nan))
        board.add_call(call(7, loss=0.5))
    assert shown(tmp_path, "train") == {
        "steps/loss": {3: 1.0, 7: 0.5},
        "steps/learning_rate": {3: 0.25, 7: 0.25},
        "steps/gradient_norm": {3: 2.0, 7: 2.0},
        "steps/images_per_second": {7: 64.0},
    }


def test_an_epoch_that_was_saved_but_not_shown_is_added(tmp_path):
    """Killed between the checkpoint and the event file."""
    with Board(str(tmp_path), 0) as board:
        board.add_epoch(row(1, 0.5, 0.75), times(1))
    history = [row(1, 0.5, 0.75), row(2, 0.25, 0.5)]
    for _ in range(3):  # killed again and again
        with Board(str(tmp_path), 20) as board:
            board.begin({}, history, {1: times(1)})
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75, 20: 0.5}
    assert shown(tmp_path, "train")["epoch/loss"] == {10: 0.5, 20: 0.25}
    # The table of times is written after the checkpoint too.
    assert shown(tmp_path, "train")["epoch/images_per_second"] == {10: 100}


def test_an_epoch_without_a_loss_is_shown_once(tmp_path):
    """A loss that is NaN is not written; the epoch was shown all the same."""
    history = [row(1, math.nan, math.nan)]
    with Board(str(tmp_path), 0) as board:
        board.add_epoch(history[0], times(1))
    with Board(str(tmp_path), 10) as board:
        board.begin({}, history, {1: times(1)})
    for split, accuracy in (("train", 0.25), ("val", 0.125)):
        values = shown(tmp_path, split)  # which has every step once
        assert values["epoch/accuracy"] == {10: accuracy} and "epoch/loss" not in values


def test_steps_that_are_done_again_are_shown_once(tmp_path):
    """Killed in the midst of epoch 2; the checkpoint is of step 14."""
    with Board(str(tmp_path), 0) as board:
        for step in (5, 10):
            board.add_call(call(step, loss=1.0))
        board.add_epoch(row(1, 0.5, 0.75), times(1))
        for step in (14, 16, 18):
            board.add_call(call(step, loss=2.0))
    with Board(str(tmp_path), 14) as board:
        board.begin({}, [row(1, 0.5, 0.75)], {1: times(1)})
        for step in (17, 20):
            board.add_call(call(step, loss=3.0))
        board.add_epoch(row(2, 0.25, 0.5), times(2))
    train = shown(tmp_path, "train")
    assert train["steps/loss"] == {5: 1, 10: 1, 14: 2, 17: 3, 20: 3}
    assert train["epoch/loss"] == {10: 0.5, 20: 0.25}


def test_an_epoch_that_is_done_again_has_its_new_values(tmp_path):
    """The last checkpoints were damaged, and the one of epoch 1 is used, twice.

    The second time epoch 2 is saved, but the process is killed before it is shown.
    """
    history = [row(1, 1.0, 1.0)]
    with Board(str(tmp_path), 0) as board:
        for epoch in (1, 2, 3):
            board.add_epoch(row(epoch, 1.0, 1.0), times(epoch))
    with Board(str(tmp_path), 10) as board:
        board.begin({}, history, {1: times(1)})
        board.add_epoch(row(2, 2.0, 2.0), times(2))
    with Board(str(tmp_path), 10) as board:
        board.begin({}, history, {1: times(1)})
    with Board(str(tmp_path), 20) as board:
        board.begin({}, [*history, row(2, 3.0, 3.0)], {1: times(1)})
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 1.0, 20: 3.0}
    assert shown(tmp_path, "train")["epoch/images_per_second"] == {10: 100}


def test_epochs_without_a_board_are_added(tmp_path):
    history = [row(epoch, epoch / 8, epoch / 4) for epoch in (1, 2, 3)]
    with Board(str(tmp_path), 30) as board:
        board.begin({}, history, {2: times(2)})
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.25, 20: 0.5, 30: 0.75}
    assert shown(tmp_path, "val")["epoch/images_per_second"] == {20: 2000}


def test_a_file_that_was_cut_short_is_read_up_to_there(tmp_path):
    with Board(str(tmp_path), 0) as board:
        board.add_epoch(row(1, 0.5, 0.75), times(1))
        board.add_epoch(row(2, 0.25, 0.5), times(2))
    (path,) = (tmp_path / "val").iterdir()
    os.truncate(path, path.stat().st_size - 5)
    with Board(str(tmp_path), 20) as board:
        board.begin({}, [row(1, 0.5, 0.75), row(2, 0.25, 0.5)], {})
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75, 20: 0.5}
    assert shown(tmp_path, "train")["epoch/loss"] == {10: 0.5, 20: 0.25}


def test_the_configuration_is_shown_once_as_a_table(tmp_path):
    for seed in (1, 2):
        with Board(str(tmp_path), 0) as board:
            board.begin({"seed": seed, "classes": "", "data_dir": "a|b"}, [], {})
    ((step, text),) = shown(tmp_path, "train")["configuration"].items()
    assert step == 0
    assert text.item().decode().splitlines() == [
        "| flag | value |",
        "| --- | --- |",
        "| `--seed` | `1` |",
        "| `--classes` |  |",
        r"| `--data_dir` | `a\|b` |",
    ]


def test_pictures_come_back_pixel_by_pixel(tmp_path):
    figure, axes = style.figure(2, 1)
    axes.plot([1, 3, 2])
    png = style.png(figure, 72)
    with Board(str(tmp_path), 0) as board:
        board.add_picture(10, "confusion", png)
    width, height, image = shown(tmp_path, "val")["confusion"][10]
    assert (int(width), int(height)) == (144, 72)
    np.testing.assert_array_equal(tf.io.decode_png(image), tf.io.decode_png(png))


def test_everything_is_on_disk_when_an_epoch_ends(tmp_path):
    """A process that is killed later has lost nothing of it."""
    board = Board(str(tmp_path), 0)
    board.add_call(call(10))
    board.add_epoch(row(1, 0.5, 0.75), times(1))
    assert shown(tmp_path, "train")["steps/loss"] == {10: 1.0}
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75}
    board.__exit__()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(RunError, match=r"tensorboard: cannot be written .*--notensorboard"):
        Board(str(tmp_path / "tensorboard"), 0)


def test_without_the_package_the_message_says_what_to_do(monkeypatch):
    board_lib.check_tensorboard()
    monkeypatch.setattr(board_lib, "_MISSING", "No module named 'tensorboard'")
    with pytest.raises(RequestError, match=r"No module named 'tensorboard'.*pip install.*--notens"):
        board_lib.check_tensorboard()
