"""The epochs around the steps, with steps that only pretend."""

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.system.errors import RunError, StoppedError
from flowers_tpu.training import calls, metrics, pacing, steps
from flowers_tpu.training.state import Progress, TrainState, step_counter

pytestmark = pytest.mark.core

STEPS = 5  # of an epoch


class Checkpoints:
    def __init__(self, state):
        self.state = state
        self.latest, self.best = [], []

    def save_latest(self):
        self.latest.append((int(self.state.step.numpy()), len(self.state.progress.history)))

    def save_best(self, epoch):
        self.best.append(epoch)


class Never:
    requested = False

    def check(self):
        pass


class At(Never):
    """Asks to stop at the n-th poll."""

    def __init__(self, poll):
        self.left = poll

    @property
    def requested(self):
        self.left -= 1
        return self.left <= 0

    def check(self):
        if self.left <= 0:
            raise StoppedError


def make_plan(**changes):
    values = {
        "num_classes": 2,
        "global_batch_size": 4,
        "steps_per_epoch": STEPS,
        "warmup_epochs": 1,
        "epochs": 6,
        "early_stopping_patience": 2,
        "seed": 0,
        "objective": steps.Objective(),
        "steps_per_loop": 2,
    }
    values |= changes
    total = (values["warmup_epochs"] + values["epochs"]) * STEPS
    return calls.Plan(**values, rates=np.arange(total, dtype=np.float32))


def fit(
    plan,
    losses,
    *,
    state=None,
    checkpoints=None,
    interruption=None,
    bad=(),
    on_steps=None,
    on_epoch=None,
    stops=(),
):
    """Runs `fit` with validation losses as given; tells what happened."""
    state = state or TrainState(None, None, None, step_counter(), Progress(metrics.empty(2)))
    checkpoints, calls, begins = checkpoints or Checkpoints(state), [], []

    def train_steps(stage):
        def function(iterator, num_steps):
            finite, first, rows = True, int(state.step.numpy()), []
            for _ in range(int(num_steps)):
                step = int(state.step.numpy())
                if step in bad and step not in state.progress.skipped:
                    finite = False
                    break
                state.step.assign_add(1)
                rows.append([step % 2, step % 2, 1, 1, step])
            calls.append((stage, first, int(num_steps)))
            outcomes = np.reshape(np.float32(rows), [-1, len(metrics.COLUMNS)])
            return tf.constant(outcomes), tf.constant(3.0), tf.constant(finite)

        return function

    def validate():
        return {"loss": losses[len(state.progress.history)]}

    calls.fit(
        plan=plan,
        state=state,
        checkpoints=checkpoints,
        train_steps=train_steps,
        train_iterator=lambda step: begins.append(step) or iter(()),
        validate=validate,
        on_steps=on_steps or (lambda call: None),
        on_epoch=on_epoch or (lambda history, times: None),
        ids_of_step=lambda step: [f"photo-{step}"],
        interruption=interruption or Never(),
        stops=stops,
    )
    return state, checkpoints, calls, begins


def test_stages_calls_and_rows():
    state, checkpoints, calls, begins = fit(make_plan(epochs=2), [3.0, 2.0, 1.0])
    assert begins == [0], "one iterator serves the whole run"
    assert calls == [
        *[("warmup", 0, 2), ("warmup", 2, 2), ("warmup", 4, 1)],
        *[("finetune", 5, 2), ("finetune", 7, 2), ("finetune", 9, 1)],
        *[("finetune", 10, 2), ("finetune", 12, 2), ("finetune", 14, 1)],
    ]
    rows = state.progress.history
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert [row["stage"] for row in rows] == ["warmup", "finetune", "finetune"]
    assert [row["learning_rate"] for row in rows] == [4, 9, 14]
    assert [row["loss"] for row in rows] == [2, 7, 12]  # means of 0..4, 5..9, 10..14
    assert checkpoints.latest == [(5, 1), (10, 2), (15, 3)]


def test_early_stopping_counts_in_finetuning_only():
    # The warm-up's loss is the lowest of all and counts for nothing.
    state, checkpoints, *_ = fit(make_plan(), [0.1, 3.0, 2.0, 2.5, 2.0, 9.0, 9.0])
    assert len(state.progress.history) == 5
    assert checkpoints.best == [2, 3]  # 3.0, then 2.0; an equal loss is no improvement
    assert calls.best_row(make_plan(), state.progress.history)["epoch"] == 3


def test_a_finished_run_does_nothing():
    plan = make_plan(epochs=1)
    state, *_ = fit(plan, [1.0, 1.0])
    _, checkpoints, calls, _ = fit(plan, [], state=state)
    assert calls == [] and checkpoints.latest == []


@pytest.mark.parametrize("poll", range(1, 10))
def test_an_interruption_saves_and_the_run_goes_on_the_same(poll):
    plan = make_plan(epochs=2)
    expected, *_ = fit(plan, [3.0, 2.0, 1.0])
    state = TrainState(None, None, None, step_counter(), Progress(metrics.empty(2)))
    checkpoints = Checkpoints(state)
    with pytest.raises(StoppedError):
        fit(plan, [3.0, 2.0, 1.0], state=state, checkpoints=checkpoints, interruption=At(poll))
    stopped_at = int(state.step.numpy())
    assert checkpoints.latest[-1] == (stopped_at, len(state.progress.history)), "it was saved"
    _, _, _, begins = fit(plan, [3.0, 2.0, 1.0], state=state)
    assert begins == ([] if stopped_at == 15 else [stopped_at])
    assert state.progress.history == expected.progress.history


def test_checkpoints_within_epochs():
    _, checkpoints, calls, _ = fit(make_plan(epochs=1, checkpoint_every_steps=3), [1.0, 1.0])
    assert checkpoints.latest == [(3, 0), (5, 1), (6, 1), (9, 1), (10, 2)]
    assert [first + count for _, first, count in calls] == [2, 3, 5, 6, 8, 9, 10]


def test_calls_end_at_given_stops():
    # 0 and 10 are ends of calls anyway; 99 is never reached.
    _, _, calls, _ = fit(make_plan(epochs=1), [1.0, 1.0], stops=(0, 1, 8, 10, 99))
    assert [first + count for _, first, count in calls] == [1, 3, 5, 7, 8, 10]


def test_each_call_tells_what_it_came_to(monkeypatch):
    clock = iter(np.arange(0, 1e6, 0.5))
    monkeypatch.setattr(pacing.time, "monotonic", lambda: next(clock))
    told = []
    fit(make_plan(epochs=1), [1.0, 1.0], on_steps=told.append)
    assert [call.step for call in told] == [2, 4, 5, 7, 9, 10]
    assert [call.learning_rate for call in told] == [1, 3, 4, 6, 8, 9]
    # Means of 0..1, 0..3, 0..4 and, the epoch being another, of 5..6, 5..8, 5..9.
    assert [call.loss for call in told] == [0.5, 1.5, 2, 5.5, 6.5, 7]
    assert {call.gradient_norm for call in told} == {3.0}
    rates = [call.images_per_second for call in told]
    assert np.isnan([rates[0], rates[3]]).all(), "the first call of a stage compiles"
    # Each call takes 0.5 s or, where the loop looks at the clock in between, more: 4 photos a step.
    assert rates[1] == 2 * 4 / 0.5 and rates[2] == 1 * 4 / 0.5


def test_an_epoch_whose_steps_were_done_before_has_no_speed(monkeypatch):
    """Stopped in the validation of the first epoch, and continued."""
    plan, told = make_plan(epochs=1), []
    state = TrainState(None, None, None, step_counter(), Progress(metrics.empty(2)))
    state.step.assign(STEPS)
    clock = iter(np.arange(0, 1e6, 0.5))
    monkeypatch.setattr(calls.time, "monotonic", lambda: next(clock))
    fit(plan, [1.0, 1.0], state=state, on_epoch=lambda history, times: told.append(times))
    first, second = (times["train_images_per_second"] for times in told)
    assert np.isnan(first)
    assert second == STEPS * 4 / told[1]["train_seconds"]


def test_a_step_that_is_not_finite_stops():
    with pytest.raises(RunError, match=r"step 7 \(epoch 2\).*rate 7.*norm 3.0.*photos photo-7\)"):
        fit(make_plan(), [1.0] * 7, bad={7})


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    state, *_ = fit(make_plan(epochs=2, on_nan="skip"), [3.0, 2.0, 1.0], bad={0, 7, 8, 14})
    rows = state.progress.history
    assert state.progress.skipped == [0, 7, 8, 14]
    assert [row["skipped_steps"] for row in rows] == [1, 2, 1]
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert [row["loss"] for row in rows] == [2.5, (5 + 6 + 9) / 3, 11.5]


def test_checkpoints_by_time(monkeypatch):
    clock = iter(np.arange(0, 1e6, 4.0))
    monkeypatch.setattr(calls.time, "monotonic", lambda: next(clock))
    _, often, *_ = fit(make_plan(epochs=1, checkpoint_every_seconds=1), [1.0, 1.0])
    assert often.latest == [(2, 0), (4, 0), (5, 1), (7, 1), (9, 1), (10, 2)]
    _, never, *_ = fit(make_plan(epochs=1, checkpoint_every_seconds=1e5), [1.0, 1.0])
    assert never.latest == [(5, 1), (10, 2)]
