"""The whole loop of a training, with steps that only pretend and a clock that they move."""

import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.monitor.watchers import Watcher
from flowers_tpu.runs import boundary, loop
from flowers_tpu.runs.folder import HISTORY, TIMING, RunFolder
from flowers_tpu.runs.goodput import Goodput
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.errors import RunError, StoppedError
from flowers_tpu.training import metrics, multistep, pacing
from flowers_tpu.training.history import best_row
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import Progress, TrainState, step_counter
from flowers_tpu.training.steps import Objective

pytestmark = pytest.mark.core

STEPS, EVAL_STEPS = 5, 2  # of an epoch; a call of training does two steps
PHOTOS = 4  # of a step
FLAGS = {
    **{"warmup_epochs": 1, "epochs": 6, "early_stopping_patience": 2, "steps_per_loop": 2},
    **{"checkpoint_every_minutes": 0.0, "tensorboard": False, "monitor": "val_loss"},
}


class Never:
    stop_requested = False


class At:
    """Asks to stop from the n-th time on that it is looked at."""

    def __init__(self, look):
        self.left = look

    @property
    def stop_requested(self):
        self.left -= 1
        return self.left <= 0


class Run:
    """A run whose parts only pretend, and what happens to it, in order, as `events`.

    The loss of a step is its number; a step takes a second, and a step of validation half of one.
    """

    def __init__(self, monkeypatch, folder, losses, *, bad=(), **changes):
        self.losses, self.bad, self.events, self.now = losses, bad, [], 0.0
        self.spec = Spec.of(**FLAGS | changes)
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        for module in (loop, pacing):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(multistep, "compile_train_steps", self.compile_train_steps)
        monkeypatch.setattr(multistep, "compile_eval_steps", self.compile_eval_steps)
        monkeypatch.setattr(loop, "watchers", lambda *_: [Recorder(self.events)])
        classifier = types.SimpleNamespace(model=None, evaluated=None)
        self.state = TrainState(classifier, None, None, step_counter(), Progress(metrics.empty(2)))
        options = self.spec.training
        rates = np.arange(self.spec.schedule.total_epochs * STEPS, dtype=np.float32)
        self.plan = Plan(
            *(self.spec.schedule, options, 2, PHOTOS, STEPS, rates, Objective(options, PHOTOS)),
        )
        feed = types.SimpleNamespace(
            recipe=types.SimpleNamespace(strategy=None, spec=self.spec),
            prepare=None,
            train_batches=self.train_batches,
            eval_batches=lambda source: [source] * EVAL_STEPS,
            val_source="validation",
            eval_steps=lambda split: EVAL_STEPS,
            ids_of_step=lambda step: [f"photo-{step}"],
        )
        split = types.SimpleNamespace(size=EVAL_STEPS * PHOTOS)
        data = types.SimpleNamespace(splits={"val": split})
        self.folder = RunFolder(str(folder))
        self.trained = types.SimpleNamespace(folder=self.folder, feed=feed, data=data)

    def fit(self, signals=None):
        begun = boundary.TrainingBoundary(
            signals or Never(), self.spec.run, began_at=0.0, clock=lambda: self.now
        )
        spent = Goodput(self.folder, 0.0, clock=lambda: self.now)
        loop.fit(self.trained, self.plan, self.state, self, begun, spent)
        return self

    @property
    def history(self):
        return self.state.progress.history

    def of(self, *kinds):
        """The events of some kinds."""
        return [event for event in self.events if event[0] in kinds]

    # Checkpoints

    def save_latest(self):
        self.events.append(("latest", int(self.state.step.numpy()), len(self.history)))

    def save_best(self, epoch):
        self.events.append(("best", epoch))

    def has_latest(self):
        return True  # that of an earlier process, at least

    def drop_latest(self):
        self.events.append(("dropped",))
        return False

    # Batches and compiled functions

    def train_batches(self, first_step, num_steps):
        self.events.append(("batches", first_step, num_steps))
        return []

    def compile_train_steps(self, strategy, state, stage, objective, augment):
        def train_steps(iterator, num_steps):
            first = int(state.step.numpy())
            numbers = range(first, first + int(num_steps))
            self.events.append(("steps", stage, first, len(numbers)))
            state.step.assign_add(len(numbers))
            self.now += len(numbers)
            return multistep.Results(
                tf.constant([outcomes(step) for step in numbers], tf.float32),
                tf.constant([3.0] * len(numbers)),
                *2 * [tf.constant([step not in self.bad for step in numbers])],
                tf.constant([0.25] * len(numbers)),
            )

        return train_steps

    def compile_eval_steps(self, strategy, model):
        def eval_steps(iterator, num_steps):
            assert {next(iterator) for _ in range(int(num_steps))} == {"validation"}
            self.now += 0.5 * int(num_steps)
            loss = self.losses[len(self.history)]
            return tf.constant([outcomes(loss)] * int(num_steps), tf.float32)

        return eval_steps


def outcomes(loss):
    return [[0, 0, 1, 1, loss]] * PHOTOS


class Recorder(Watcher):
    """Notes what it is shown."""

    def __init__(self, events):
        self.events = events

    def on_call(self, call):
        self.events.append(("call", call.step))

    def on_validation(self, call):
        self.events.append(("validation", call.steps))

    def on_epoch(self, epoch):
        self.events.append(("epoch", epoch.row["epoch"], epoch.is_best, epoch.is_last))

    def close(self):
        self.events.append(("closed",))


@pytest.fixture
def make_run(monkeypatch, tmp_path_factory):
    return lambda *args, **options: Run(
        monkeypatch, tmp_path_factory.mktemp("run"), *args, **options
    )


def test_stages_calls_and_rows(make_run):
    run = make_run([3.0, 2.0, 1.0], epochs=2).fit()
    assert run.of("batches") == [("batches", 0, 5), ("batches", 5, 15)], "an iterator a stage"
    assert [event[1:] for event in run.of("steps")] == [
        *[("warmup", 0, 2), ("warmup", 2, 2), ("warmup", 4, 1)],
        *[("finetune", 5, 2), ("finetune", 7, 2), ("finetune", 9, 1)],
        *[("finetune", 10, 2), ("finetune", 12, 2), ("finetune", 14, 1)],
    ]
    rows = run.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert [row["stage"] for row in rows] == ["warmup", "finetune", "finetune"]
    assert [row["learning_rate"] for row in rows] == [4, 9, 14]
    assert [row["loss"] for row in rows] == [2, 7, 12]  # means of 0..4, 5..9, 10..14
    assert [row["val_loss"] for row in rows] == [3, 2, 1]
    assert [row["val_accuracy"] for row in rows] == [1, 1, 1]
    assert run.of("latest") == [("latest", 5, 1), ("latest", 10, 2), ("latest", 15, 3)]
    written = run.folder.read_table(HISTORY)
    pd.testing.assert_frame_equal(written, pd.DataFrame(rows), check_dtype=False)


def test_early_stopping_counts_in_finetuning_only(make_run):
    # The warm-up's loss is the lowest of all and counts for nothing.
    run = make_run([0.1, 3.0, 2.0, 2.5, 2.0, 9.0, 9.0]).fit()
    assert len(run.history) == 5
    # 3.0, then 2.0; an equal loss is no improvement.
    assert run.of("best") == [("best", 2), ("best", 3)]
    assert best_row(run.history)["epoch"] == 3
    assert [event[2:] for event in run.of("epoch")] == [
        *[(False, False), (True, False), (True, False), (False, False), (False, True)],
    ]


def test_a_finished_run_does_nothing_but_write_its_history(make_run):
    """Which is missing if the run was killed after its last checkpoint."""
    run = make_run([1.0, 1.0], epochs=1).fit()
    run.events.clear()
    table = run.folder.read_table(HISTORY)
    tf.io.gfile.remove(run.folder.file(HISTORY))
    run.fit()
    assert run.events == [("closed",)]
    pd.testing.assert_frame_equal(run.folder.read_table(HISTORY), table)


# What is saved, and when


def test_all_is_saved_before_anybody_watches(make_run):
    run = make_run([2.0, 1.0], epochs=1, checkpoint_every_steps=2).fit()
    assert [event for event in run.events if event[0] not in ("steps", "batches")] == [
        *[("latest", 2, 0), ("call", 2), ("latest", 4, 0), ("call", 4), ("call", 5)],
        *[("validation", 1), ("validation", 1), ("latest", 5, 1), ("epoch", 1, False, False)],
        *[("latest", 6, 1), ("call", 6), ("latest", 8, 1), ("call", 8), ("call", 10)],
        *[("validation", 1), ("validation", 1), ("best", 2), ("latest", 10, 2)],
        *[("epoch", 2, True, True), ("closed",)],
    ]


def test_when_somebody_watches_the_tables_are_written(make_run, monkeypatch):
    run, seen = make_run([2.0, 1.0], epochs=1), []

    def look(recorder, epoch):
        seen.append([len(run.folder.read_table(name)) for name in (HISTORY, TIMING)])

    monkeypatch.setattr(Recorder, "on_epoch", look)
    run.fit()
    assert seen == [[1, 1], [2, 2]]


def test_a_watcher_that_fails_costs_a_warning_and_not_the_run(make_run, monkeypatch, caplog):
    def fail(recorder, call):
        raise OSError("no space left")

    monkeypatch.setattr(Recorder, "on_call", fail)
    run = make_run([2.0, 1.0], epochs=1).fit()
    assert len(run.history) == 2
    assert caplog.text.count("no space left") == 1


def test_checkpoints_within_epochs(make_run):
    run = make_run([1.0, 1.0], epochs=1, checkpoint_every_steps=3).fit()
    assert [event[1:] for event in run.of("latest")] == [(3, 0), (5, 1), (6, 1), (9, 1), (10, 2)]
    assert [first + count for _, _, first, count in run.of("steps")] == [2, 3, 5, 6, 8, 9, 10]


@pytest.mark.parametrize(
    ("seconds", "saves"),
    [
        (1, [(2, 0), (4, 0), (5, 1), (7, 1), (9, 1), (10, 2)]),
        # Each save begins the interval anew: at 0, 4, 6 (after a second of validation), 10, 12 s.
        (3, [(4, 0), (5, 1), (9, 1), (10, 2)]),
        (1e5, [(5, 1), (10, 2)]),
    ],
)
def test_checkpoints_by_time(make_run, seconds, saves):
    run = make_run([1.0, 1.0], epochs=1, checkpoint_every_minutes=seconds / 60).fit()
    assert [event[1:] for event in run.of("latest")] == saves


# Signals


@pytest.mark.parametrize("look", range(1, 22))
def test_a_stop_is_saved_and_the_run_goes_on_the_same(make_run, look):
    expected = make_run([3.0, 2.0, 1.0], epochs=2).fit().history
    run = make_run([3.0, 2.0, 1.0], epochs=2)
    signals = At(look)
    with pytest.raises(StoppedError, match="stopped; the same command continues"):
        run.fit(signals)
    stopped_at = int(run.state.step.numpy())
    *_, last, closed = run.events
    assert last == ("latest", stopped_at, len(run.history)), "it was saved, and nobody watched"
    assert closed == ("closed",)
    run.events.clear()
    run.fit()
    stages = [(stopped_at, 5), (max(stopped_at, 5), 15)]
    assert run.of("batches") == [("batches", *stage) for stage in stages if stage[0] < stage[1]]
    assert run.history == expected
    assert len(run.folder.read_table(TIMING)) == 3


def test_a_stop_after_the_last_validation_comes_too_late(make_run):
    """Of the 21 looks: before and after 3 calls of an epoch, and 2 of its validation."""
    run = make_run([3.0, 2.0, 1.0], epochs=2).fit(At(22))
    assert len(run.history) == 3


# Steps that are not finite


def test_a_checkpoint_whose_first_step_is_not_finite_is_not_sound(make_run):
    run = make_run([1.0] * 7, bad={6}, checkpoint_every_steps=1)
    with pytest.raises(RunError, match=r"checkpoint of step 6, whose first .* is removed"):
        run.fit()
    assert run.of("latest", "dropped")[-2:] == [("latest", 6, 1), ("dropped",)]


@pytest.mark.parametrize(
    ("bad", "flags", "signals", "saved"),
    [
        (7, {"checkpoint_every_steps": 2}, Never(), [6]),  # that after it was due too
        (7, {"steps_per_loop": 5}, Never(), []),  # in the middle of a call
        (6, {}, At(1), []),  # a signal asks for it
    ],
)
def test_a_step_that_is_not_finite_stops_and_nothing_is_saved_any_more(
    make_run, bad, flags, signals, saved
):
    """From it on the weights are spoilt."""
    run = make_run([1.0] * 7, bad={bad}, **flags)
    run.state.step.assign(STEPS)
    run.history.append({"epoch": 1, "val_loss": 1.0})
    message = rf"step {bad} \(epoch 2\).*rate {bad}.*norm 3.0.*photos photo-{bad}\).*is sound"
    with pytest.raises(RunError, match=message):
        run.fit(signals)
    assert run.of("latest", "call") == [
        event for step in saved for event in (("latest", step, 1), ("call", step))
    ]
    assert run.events[-1] == ("closed",)


def test_a_step_that_is_not_finite_is_skipped_and_counted(make_run, caplog):
    bad = {0, 7, 8, 14}
    run = make_run([3.0, 2.0, 1.0], bad=bad, epochs=2, on_nan="skip").fit()
    assert run.state.progress.skipped == [0, 7, 8, 14]
    rows = run.history
    assert [row["skipped_steps"] for row in rows] == [1, 2, 1]
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert [row["loss"] for row in rows] == [2.5, (5 + 6 + 9) / 3, 11.5]
    for step in bad:
        assert f"step {step} (epoch {step // 5 + 1}): loss or gradients are not" in caplog.text
        assert f"photos photo-{step}); skipped" in caplog.text


# Times


def test_times_of_epochs(make_run):
    """A step takes a second, a quarter of it waiting for photos; a validation one in all."""
    run = make_run([1.0, 1.0], epochs=1).fit()
    expected = pd.DataFrame(
        {
            "epoch": [1, 2],
            "train_seconds": [5.0, 5.0],
            "input_seconds": [1.25, 1.25],
            "train_images_per_second": [4.0, 4.0],
            "val_seconds": [1.0, 1.0],
            "val_images_per_second": [8.0, 8.0],
        }
    )
    pd.testing.assert_frame_equal(run.folder.read_table(TIMING), expected)


def test_an_epoch_whose_steps_were_done_before_has_no_speed(make_run):
    """Stopped in the validation of the first epoch, and continued."""
    run = make_run([1.0, 1.0], epochs=1)
    run.state.step.assign(STEPS)
    run.now = 100.0
    with np.errstate(all="raise"):
        run.fit()
    first, second = run.folder.read_table(TIMING).to_dict("records")
    assert np.isnan(first["train_images_per_second"])
    assert first["val_images_per_second"] == 8
    assert second["train_images_per_second"] == 4


def test_an_epoch_that_was_begun_before_has_the_speed_of_its_rest(make_run):
    run = make_run([1.0, 1.0], epochs=1)
    run.state.step.assign(3)
    run.fit()
    times = run.folder.read_table(TIMING).to_dict("records")
    assert [row["train_seconds"] for row in times] == [2, 5]
    assert [row["train_images_per_second"] for row in times] == [4, 4]
