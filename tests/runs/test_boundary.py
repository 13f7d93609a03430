"""What is decided between two calls, with a clock that only moves when it is told to."""

import types

import pytest

from flowers_tpu.runs.boundary import EvaluationBoundary, TrainingBoundary
from flowers_tpu.runs.options import RunOptions
from flowers_tpu.training.calls import Decision
from flowers_tpu.training.pacing import Pacer

pytestmark = pytest.mark.core

NEVER = {"checkpoint_every_minutes": 0.0}


class Clock:
    """Moves only when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make(clock, *, stop=False, **options):
    signals = types.SimpleNamespace(stop_requested=stop)
    return TrainingBoundary(signals, RunOptions(**options), began_at=clock(), clock=clock)


def ends_of_calls(made, epoch_end, pacer):
    """Where calls end that begin with step 0, if epochs have so many steps."""
    step, ends, end = 0, [], epoch_end
    while step < 2 * epoch_end:
        end = epoch_end if step < epoch_end else 2 * epoch_end
        step += made.decide(step, end, pacer).steps
        ends.append(step)
    return ends


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, [4, 5, 9, 10]),
        ({"checkpoint_every_steps": 3}, [3, 5, 6, 9, 10]),
        ({"checkpoint_every_steps": 7}, [4, 5, 7, 10]),
        ({"checkpoint_every_steps": 100}, [4, 5, 9, 10]),
        ({"profile_steps": "1,8"}, [1, 5, 8, 10]),
        ({"profile_steps": "0,5"}, [4, 5, 9, 10]),  # ends of calls anyway
        ({"profile_steps": "8,99"}, [4, 5, 8, 10]),  # 99 is never reached
        ({"profile_steps": "1,2", "checkpoint_every_steps": 3}, [1, 2, 3, 5, 6, 9, 10]),
    ],
)
def test_calls_end_at_epochs_saves_and_profiled_steps(clock, options, ends):
    assert ends_of_calls(make(clock, **NEVER | options), 5, Pacer(fixed=4)) == ends


def test_the_pace_is_the_pacers(clock):
    decide = make(clock, **NEVER).decide
    assert decide(0, 100, Pacer()).steps == 1, "nothing is known yet"
    assert decide(0, 100, Pacer(fixed=7)).steps == 7
    assert decide(98, 100, Pacer(fixed=7)).steps == 2


def test_it_is_saved_every_so_many_steps_but_not_at_the_end_of_an_epoch(clock):
    decide = make(clock, **NEVER | {"checkpoint_every_steps": 5}).decide
    saves = [step for step in range(1, 21) if decide(step, 20, Pacer()).save]
    assert saves == [5, 10, 15], "an epoch's end is saved with its validation"


def test_it_is_saved_once_so_much_time_has_passed(clock):
    made = make(clock, checkpoint_every_minutes=2.0)
    saves = []
    for step in range(1, 10):
        clock.now += 50
        if made.decide(step, 100, Pacer()).save:
            made.saved()
            saves.append(step)
    assert saves == [3, 6, 9]


def test_a_save_that_is_due_stays_due_until_it_is_done(clock):
    made = make(clock, checkpoint_every_minutes=2.0)
    clock.now += 120
    assert made.decide(1, 100, Pacer()).save
    assert made.decide(2, 100, Pacer()).save
    assert not made.decide(100, 100, Pacer()).save, "the end of an epoch"
    made.saved()
    assert not made.decide(3, 100, Pacer()).save


def test_without_intervals_nothing_is_saved_within_an_epoch(clock):
    made = make(clock, **NEVER)
    clock.now += 1e6
    assert not any(made.decide(step, 100, Pacer()).save for step in range(100))


@pytest.mark.parametrize("step", [1, 99, 100])
def test_a_signal_saves_and_stops_wherever_it_comes(clock, step):
    decision = make(clock, stop=True, **NEVER).decide(step, 100, Pacer())
    assert decision == Decision(1, save=True, stop="signal")
    assert not make(clock, **NEVER).decide(step, 100, Pacer()).stop


@pytest.mark.parametrize(
    ("validated", "hours_of_training"),
    [(None, 9.0), ((3600, 0.5), 9.0), ((7200, 0.25), 9.0), ((3600, 1.0), 8.0)],
)
def test_the_time_is_up_while_there_is_some_for_the_scores(clock, validated, hours_of_training):
    """Of 10 hours a tenth is kept until a validation is done, then twice what its speed says."""
    made = make(clock, max_hours=10.0, **NEVER)
    if validated:
        made.reserve_for_scores(*validated)
    clock.now += hours_of_training * 3600 - 1
    assert made.decide(1, 100, Pacer()) == Decision(1)
    clock.now += 1
    assert made.decide(1, 100, Pacer()) == Decision(1, save=True, stop="time")
    made.signals.stop_requested = True
    assert made.stop() == "signal", "which does not wait for the scores"


def test_only_a_signal_ends_an_evaluation_early():
    signals = types.SimpleNamespace(stop_requested=False)
    evaluation = EvaluationBoundary(signals)
    assert evaluation.decide(0, 9, Pacer(fixed=4)) == Decision(4)
    assert evaluation.decide(8, 9, Pacer(fixed=4)) == Decision(1)
    signals.stop_requested = True
    assert evaluation.decide(4, 9, Pacer(fixed=4)) == Decision(4, save=True, stop="signal")
