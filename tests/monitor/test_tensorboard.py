"""Event files, read back as TensorBoard reads them."""

import itertools
import math
import os
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.summary.writer import event_file_writer

from flowers_tpu.monitor import tensorboard as board_lib
from flowers_tpu.monitor.tensorboard import Board
from flowers_tpu.monitor.watchers import Watchers
from flowers_tpu.reports import style
from flowers_tpu.system.errors import RequestError
from tests.monitor.watching import call, epoch_of, row, shown, times


@pytest.fixture(autouse=True)
def _one_second_per_file(monkeypatch):
    """Names of event files begin with the second, and tests open several within one."""
    seconds = itertools.count(1_700_000_000)
    clock = types.SimpleNamespace(time=lambda: next(seconds))
    monkeypatch.setattr(event_file_writer, "time", clock)


def board_of(folder, step=0, configuration=None, history=(), times=None):
    return Board(str(folder), step, configuration or {}, history, times or {})


def test_an_epoch_is_shown_with_all_its_values(tmp_path):
    with board_of(tmp_path) as board:
        board.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
        board.on_epoch(epoch_of([row(2, 0.25, 0.5)], times(2)))
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
    with board_of(tmp_path) as board:
        board.on_call(call(3, images_per_second=math.nan))
        board.on_call(call(7, loss=0.5))
    train = shown(tmp_path, "train")
    del train["configuration"]
    assert train == {
        "steps/loss": {3: 1.0, 7: 0.5},
        "steps/learning_rate": {3: 0.25, 7: 0.25},
        "steps/gradient_norm": {3: 2.0, 7: 2.0},
        "steps/images_per_second": {7: 64.0},
    }


def test_an_epoch_that_was_saved_but_not_shown_is_added(tmp_path):
    """Killed between the checkpoint and the event file."""
    with board_of(tmp_path) as board:
        board.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
    history = [row(1, 0.5, 0.75), row(2, 0.25, 0.5)]
    for _ in range(3):  # killed again and again
        with board_of(tmp_path, 20, history=history, times={1: times(1)}):
            pass
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75, 20: 0.5}
    assert shown(tmp_path, "train")["epoch/loss"] == {10: 0.5, 20: 0.25}
    # The table of times is written after the checkpoint too.
    assert shown(tmp_path, "train")["epoch/images_per_second"] == {10: 100}


def test_an_epoch_without_a_loss_is_shown_once(tmp_path):
    """A loss that is NaN is not written; the epoch was shown all the same."""
    history = [row(1, math.nan, math.nan)]
    with board_of(tmp_path) as board:
        board.on_epoch(epoch_of(history, times(1)))
    with board_of(tmp_path, 10, history=history, times={1: times(1)}):
        pass
    for split, accuracy in (("train", 0.25), ("val", 0.125)):
        values = shown(tmp_path, split)  # which has every step once
        assert values["epoch/accuracy"] == {10: accuracy} and "epoch/loss" not in values


def test_steps_that_are_done_again_are_shown_once(tmp_path):
    """Killed in the midst of epoch 2; the checkpoint is of step 14."""
    with board_of(tmp_path) as board:
        for step in (5, 10):
            board.on_call(call(step, loss=1.0))
        board.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
        for step in (14, 16, 18):
            board.on_call(call(step, loss=2.0))
    with board_of(tmp_path, 14, history=[row(1, 0.5, 0.75)], times={1: times(1)}) as board:
        for step in (17, 20):
            board.on_call(call(step, loss=3.0))
        board.on_epoch(epoch_of([row(2, 0.25, 0.5)], times(2)))
    train = shown(tmp_path, "train")
    assert train["steps/loss"] == {5: 1, 10: 1, 14: 2, 17: 3, 20: 3}
    assert train["epoch/loss"] == {10: 0.5, 20: 0.25}


def test_an_epoch_that_is_done_again_has_its_new_values(tmp_path):
    """The last checkpoints were damaged, and the one of epoch 1 is used, twice.

    The second time epoch 2 is saved, but the process is killed before it is shown.
    """
    history = [row(1, 1.0, 1.0)]
    with board_of(tmp_path) as board:
        for epoch in (1, 2, 3):
            board.on_epoch(epoch_of([row(epoch, 1.0, 1.0)], times(epoch)))
    with board_of(tmp_path, 10, history=history, times={1: times(1)}) as board:
        board.on_epoch(epoch_of([row(2, 2.0, 2.0)], times(2)))
    with board_of(tmp_path, 10, history=history, times={1: times(1)}):
        pass
    with board_of(tmp_path, 20, history=[*history, row(2, 3.0, 3.0)], times={1: times(1)}):
        pass
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 1.0, 20: 3.0}
    assert shown(tmp_path, "train")["epoch/images_per_second"] == {10: 100}


def test_epochs_without_a_board_are_added(tmp_path):
    history = [row(epoch, epoch / 8, epoch / 4) for epoch in (1, 2, 3)]
    with board_of(tmp_path, 30, history=history, times={2: times(2)}):
        pass
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.25, 20: 0.5, 30: 0.75}
    assert shown(tmp_path, "val")["epoch/images_per_second"] == {20: 2000}


def test_a_file_that_was_cut_short_is_read_up_to_there(tmp_path):
    with board_of(tmp_path) as board:
        board.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
        board.on_epoch(epoch_of([row(2, 0.25, 0.5)], times(2)))
    (path,) = (tmp_path / "val").iterdir()
    os.truncate(path, path.stat().st_size - 5)
    with board_of(tmp_path, 20, history=[row(1, 0.5, 0.75), row(2, 0.25, 0.5)]):
        pass
    assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75, 20: 0.5}
    assert shown(tmp_path, "train")["epoch/loss"] == {10: 0.5, 20: 0.25}


def test_the_configuration_is_shown_once_as_a_table(tmp_path):
    for seed in (1, 2):
        with board_of(tmp_path, configuration={"seed": seed, "classes": "", "data_dir": "a|b"}):
            pass
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
    with board_of(tmp_path) as board:
        board.add_picture(10, "confusion", png)
    width, height, image = shown(tmp_path, "val")["confusion"][10]
    assert (int(width), int(height)) == (144, 72)
    np.testing.assert_array_equal(tf.io.decode_png(image), tf.io.decode_png(png))


def test_everything_is_on_disk_when_an_epoch_ends(tmp_path):
    """A process that is killed later has lost nothing of it."""
    with board_of(tmp_path) as board:
        board.on_call(call(10))
        board.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
        assert shown(tmp_path, "train")["steps/loss"] == {10: 1.0}
        assert shown(tmp_path, "val")["epoch/loss"] == {10: 0.75}


def test_a_folder_that_cannot_be_written_is_named_in_a_warning(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file")
    board = board_of(tmp_path / "tensorboard")
    with Watchers([board]) as watching:
        assert not board.is_open
        watching.on_epoch(epoch_of([row(1)], times(1)))
    (record,) = (record for record in caplog.records if record.name == "absl")
    assert record.getMessage().startswith("Board: failed (")
    assert f"{tmp_path}/tensorboard" in record.getMessage()


class FullDisk(event_file_writer.RecordWriter):
    """Has no room from some moment on."""

    is_full = False

    def flush(self):
        if FullDisk.is_full:
            raise tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")
        super().flush()


@pytest.fixture
def disk(monkeypatch):
    """Gives a disk that becomes full if one sets `is_full`."""
    monkeypatch.setattr(event_file_writer, "RecordWriter", FullDisk)
    monkeypatch.setattr(FullDisk, "is_full", False)
    return FullDisk


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_one_warning(tmp_path, caplog, disk):
    board = board_of(tmp_path)
    with Watchers([board]) as watching:
        watching.on_epoch(epoch_of([row(1, 0.5, 0.75)], times(1)))
        disk.is_full = True
        for epoch in (2, 3):
            watching.on_call(call(10 * epoch))
            watching.on_epoch(epoch_of([row(epoch)], times(epoch)))
        assert not board.is_open
    (record,) = (record for record in caplog.records if record.name == "absl")
    assert record.getMessage() == (
        "Board: failed (ResourceExhaustedError: events; No space left on device); it watches no "
        "more, and the run goes on"
    )
    assert shown(tmp_path, "val")["epoch/loss"][10] == 0.75


def test_both_files_are_closed_even_if_one_cannot_be(tmp_path, monkeypatch):
    closed = []

    def close(writer):
        closed.append(os.path.basename(writer.get_logdir()))
        raise OSError("no space")

    board = board_of(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"), board:
        patch.setattr(board_lib.EventFileWriter, "close", close)
    assert sorted(closed) == ["train", "val"] and not board.is_open


def test_without_the_package_the_message_says_what_to_do(monkeypatch):
    board_lib.check_installed()
    monkeypatch.setattr(board_lib, "_MISSING", "No module named 'tensorboard'")
    with pytest.raises(RequestError, match=r"No module named 'tensorboard'.*pip install.*--notens"):
        board_lib.check_installed()
