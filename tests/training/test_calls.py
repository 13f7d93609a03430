"""An epoch's calls and an evaluation's, with steps that only pretend."""

import math

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.training import calls, metrics, pacing
from flowers_tpu.training.multistep import Results
from flowers_tpu.training.options import ScheduleOptions, TrainingOptions
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import Progress, TrainState, step_counter
from flowers_tpu.training.steps import Objective

pytestmark = pytest.mark.core

STEPS = 5  # of an epoch
PHOTOS = 4  # of a step


def make_state(step=0, epochs=0):
    state = TrainState(None, None, None, step_counter(), Progress(metrics.empty(2)))
    state.step.assign(step)
    state.progress.history += [{}] * epochs
    return state


def make_plan(on_nan="stop"):
    options = TrainingOptions(on_nan=on_nan)
    rates = np.arange(100, dtype=np.float32)
    return Plan(ScheduleOptions(), options, 2, PHOTOS, STEPS, rates, Objective(options, PHOTOS))


def outcomes_of(step):
    """Those of a step whose photos all have its number for a loss."""
    return np.float32([[step % 2, step % 2, 1, 1, step]] * PHOTOS)


def pretending(state, bad=(), overflowing=()):
    """A compiled function whose gradients have norms of 100 and the number of the step."""

    def train_steps(iterator, num_steps):
        first = int(state.step.numpy())
        numbers = np.arange(first, first + int(num_steps))
        state.step.assign_add(len(numbers))
        return Results(
            tf.constant(np.stack([outcomes_of(step) for step in numbers])),
            tf.constant(np.float32(100 + numbers)),
            tf.constant([step not in bad for step in numbers]),
            tf.constant([step not in (*bad, *overflowing) for step in numbers]),
            tf.constant(np.float32(0.25 * numbers)),
        )

    return train_steps


class Twos:
    """Decides for two steps, as far as there are; saves and stops after the given ones."""

    def __init__(self, saves=(), stops=()):
        self.saves, self.stops, self.asked = saves, stops, []

    def decide(self, step, epoch_end, pacer):
        self.asked.append((step, epoch_end))
        return calls.Decision(min(2, epoch_end - step), step in self.saves, step in self.stops)


def train_epoch(state, *, plan=None, boundary=None, pacer=None, bad=(), overflowing=()):
    return calls.train_epoch(
        *(pretending(state, bad, overflowing), iter(()), plan or make_plan(), state),
        *(boundary or Twos(), pacer or Pacer()),
    )


@pytest.mark.parametrize(
    ("first", "epochs", "ends"),
    [(0, 0, [2, 4, 5]), (5, 1, [7, 9, 10]), (8, 1, [10]), (5, 0, [])],
)
def test_an_epoch_goes_from_where_the_state_is_to_its_end(first, epochs, ends):
    state = make_state(first, epochs)
    assert [call.step for call in train_epoch(state)] == ends
    assert state.step.numpy() == (epochs + 1) * STEPS


def test_each_call_says_what_it_came_to():
    state = make_state(5, epochs=1)
    found = list(train_epoch(state))
    assert [call.steps for call in found] == [2, 2, 1]
    assert [call.learning_rate for call in found] == [6, 8, 9]
    assert [call.loss for call in found] == [5.5, 6.5, 7]  # means of 5..6, 5..8, 5..9
    assert [call.gradient_norm for call in found] == [106, 108, 109]
    assert [call.input_seconds for call in found] == [(5 + 6) / 4, (7 + 8) / 4, 9 / 4]
    assert {call.bad_steps for call in found} == {()}
    assert state.progress.skipped == []


def test_between_two_calls_the_state_is_whole():
    """Its sums are those of just the steps that are counted: it could be saved there."""
    state = make_state()
    for call in train_epoch(state):
        assert state.step.numpy() == call.step
        expected = metrics.added(
            metrics.empty(2), np.concatenate([outcomes_of(step) for step in range(call.step)])
        )
        for name, value in expected.items():
            np.testing.assert_array_equal(state.progress.sums[name], value)
        assert metrics.scores(expected)["loss"] == call.loss


def test_nothing_is_done_before_it_is_asked_for():
    state = make_state()
    epoch = train_epoch(state)
    assert state.step.numpy() == 0
    next(epoch)
    assert state.step.numpy() == 2
    epoch.close()
    assert state.step.numpy() == 2
    assert [call.step for call in train_epoch(state)] == [4, 5]  # another goes on from there


def test_sums_that_were_there_are_added_to():
    state = make_state(3)
    state.progress.sums = metrics.added(
        metrics.empty(2), np.concatenate([outcomes_of(step) for step in range(3)])
    )
    assert [call.loss for call in train_epoch(state)] == [2]  # of 0..4


def test_the_boundary_is_asked_once_after_each_call_and_decides_the_next():
    boundary = Twos(saves=(2, 5), stops=(4,))
    found = list(train_epoch(make_state(), boundary=boundary))
    assert boundary.asked == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert [call.decision.save for call in found] == [True, False, True]
    # To stop is for whoever goes through the calls.
    assert [call.decision.stop for call in found] == [False, True, False]
    assert [call.decision.steps for call in found[:-1]] == [call.steps for call in found[1:]]


class Clock:
    """Each look at it takes half a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.5
        return self.now


def test_the_first_call_of_a_stage_has_no_speed(monkeypatch):
    monkeypatch.setattr(pacing, "time", Clock())
    state, pacer = make_state(), Pacer()
    first, *others = [call.images_per_second for call in train_epoch(state, pacer=pacer)]
    assert math.isnan(first), "it compiles"
    assert others == [2 * PHOTOS / 0.5, 1 * PHOTOS / 0.5]
    state.progress.history.append({})
    speeds = [call.images_per_second for call in train_epoch(state, pacer=pacer)]
    assert speeds == [16, 16, 8], "the pacer is the stage's"


# Bad steps


@pytest.mark.parametrize(
    ("bad", "summed"), [({2, 3}, [0, 1]), ({3}, [0, 1, 2]), ({0}, []), ({1, 4}, [0])]
)
def test_the_first_bad_step_is_reported_and_nothing_from_it_on_is_summed(bad, summed):
    state = make_state()
    call = next(call for call in train_epoch(state, bad=bad) if call.bad_steps)
    number = min(bad)
    assert call.bad_steps == (calls.BadStep(number, number, 100 + number),)
    assert state.progress.sums["loss"] == PHOTOS * sum(summed)
    assert state.progress.sums["confusion"].sum() == PHOTOS * len(summed)


def test_skipped_steps_are_reported_each_and_all_others_summed():
    state, bad = make_state(), {0, 2, 3}
    found = list(train_epoch(state, plan=make_plan("skip"), bad=bad))
    assert [[one.step for one in call.bad_steps] for call in found] == [[0], [2, 3], []]
    assert found[1].bad_steps[1] == calls.BadStep(3, learning_rate=3, gradient_norm=103)
    assert state.progress.skipped == [0, 2, 3]
    assert [call.step for call in found] == [2, 4, 5]
    assert [call.loss for call in found] == [1, 1, 2.5]  # means of 1, 1 and 1, 4


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_steps_that_overflow_are_counted_and_no_trouble(on_nan):
    """Their losses are as finite as those of others."""
    state = make_state()
    found = list(train_epoch(state, plan=make_plan(on_nan), overflowing={1, 2}))
    assert {call.bad_steps for call in found} == {()}
    assert state.progress.skipped == [1, 2]
    assert found[-1].loss == 2  # the mean of 0..4


def test_an_epoch_of_nothing_but_skipped_steps_has_no_loss():
    found = list(train_epoch(make_state(), plan=make_plan("skip"), bad=set(range(STEPS))))
    assert all(math.isnan(call.loss) for call in found)


# Evaluation


def evaluating(iterator, num_steps):
    return tf.constant(np.stack([outcomes_of(next(iterator)) for _ in range(int(num_steps))]))


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(1, [1]), (2, [2]), (5, [2, 2, 1]), (6, [2, 2, 2])]
)
def test_an_evaluation_adds_up_all_its_steps(num_steps, expected):
    boundary = Twos()
    found = list(calls.evaluate(evaluating, iter(range(num_steps)), num_steps, 2, boundary))
    assert [call.steps for call in found] == expected
    assert metrics.scores(found[-1].sums)["loss"] == (num_steps - 1) / 2
    assert [call.sums["confusion"].sum() for call in found] == list(np.cumsum(expected) * PHOTOS)
    assert [step for step, _ in boundary.asked] == [0, *np.cumsum(expected)]


def test_an_evaluation_may_be_left():
    iterator = iter(range(5))
    found = calls.evaluate(evaluating, iterator, 5, 2, Twos(stops=(2,)))
    assert next(found).decision == calls.Decision(2, save=False, stop=True)
    found.close()
    assert len(list(iterator)) == 3
