"""The lines of a run that a person reads, and its bars."""

import math

import pytest
from absl import logging

from flowers_tpu.monitor import console
from flowers_tpu.training.options import ScheduleOptions
from tests.monitor.watching import call, epoch_of, eval_call, make_plan, row, times

ROW = row(1) | dict.fromkeys(("macro_f1", "top5_accuracy", "val_macro_f1"), 0.25)
SCORES = {"loss": 0.5, "accuracy": 0.25, "top5_accuracy": 0.75, "macro_f1": 0.125}


@pytest.fixture
def verbosity():
    """Sets `--verbosity`."""
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


# Lines


def test_an_epoch_is_printed_with_its_speed_if_it_has_one(capsys):
    lines = console.Lines(make_plan())
    lines.on_epoch(epoch_of([ROW], times(1), is_best=True))
    unknown = times(1) | {"train_images_per_second": math.nan}
    lines.on_epoch(epoch_of([ROW], unknown))
    known, unknown = capsys.readouterr().out.splitlines()
    assert known.startswith("epoch   1/3 finetune  rate 5.00e-01  train loss 0.5000 acc 0.2500")
    assert known.endswith("3 s, 100 images/s  best so far")
    assert unknown.endswith("3 s, – images/s")


@pytest.mark.parametrize(("level", "logged"), [(-1, []), (1, ["step 7"])])
def test_calls_are_logged_at_high_verbosity_only(caplog, capsys, verbosity, level, logged):
    verbosity(level)
    console.Lines(make_plan()).on_call(call(7, loss=0.123456, images_per_second=math.nan))
    lines = [record.getMessage() for record in caplog.records if record.name == "absl"]
    assert [line.partition(":")[0] for line in lines] == logged
    if logged:
        assert lines == [
            "step 7: loss of the epoch so far 0.1235, gradient norm 2, nan images/s",
        ]
    assert capsys.readouterr().out == ""


def test_nothing_is_printed_at_low_verbosity(capsys, verbosity):
    verbosity(-2)
    console.Lines(make_plan()).on_epoch(epoch_of([ROW], times(1)))
    assert capsys.readouterr().out == ""


def test_scores_come_with_the_files_there_are(capsys):
    scores = {"val": {"examples": 1234, **SCORES}}
    console.print_scores(scores, "runs/mine", ["checkpoints", "history.csv", "scores.json"])
    out = capsys.readouterr().out
    assert out.splitlines()[2].split() == ["val", "1,234", "0.5000", "0.2500", "0.7500", "0.1250"]
    assert "In runs/mine: scores.json, history.csv,\n" in out
    assert "submission.csv" not in out and "report.html" not in out and "plots" not in out
    there = ["history.csv", "plots", "report.html", "scores.json", "submission.csv"]
    console.print_scores(scores, "runs/mine", there)
    out = capsys.readouterr().out
    assert "In runs/mine: scores.json, history.csv, submission.csv, plots, report.html,\n" in out


def test_a_score_that_json_has_no_word_for_is_printed_as_nan(capsys):
    scores = {"val": {"examples": 9, **SCORES, "loss": None}}
    console.print_scores(scores, "runs/mine", [])
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["val", "9", "nan", "0.2500"]


# Bars


class Bar:
    def __init__(self, events):
        self.events = events

    def update(self, n=1):
        self.events.append(n)

    def set_postfix(self, **values):
        self.events.append(values)

    def close(self):
        self.events.append("close")


@pytest.fixture
def shown(monkeypatch):
    """What bars show: title, photos in all and before; photos done, and what stands beside."""
    events = []

    def bar(total, description, unit="photos", initial=0):
        events.append((description, total, initial))
        return Bar(events)

    monkeypatch.setattr(console.terminal, "bar", bar)
    return events


def test_an_epoch_has_its_bar_then_its_validation(shown):
    """The bar is there from before the first call, which compiles; so is its clock."""
    with console.Bars(make_plan(), 7, 0, []) as bars:
        assert shown == [("epoch 1/3 warmup", 40, 0)]
        bars.on_call(call(4, 4, loss=0.5))
        bars.on_call(call(10, 6, loss=0.25))
        bars.on_validation(eval_call(1))
        bars.on_validation(eval_call(1))
        bars.on_epoch(epoch_of([row(1)]))
        assert shown[1:] == [
            *({"loss": "0.5000"}, 16, {"loss": "0.2500"}, 24, "close"),
            *(("validation", 7, 0), 4, 4, "close"),
            ("epoch 2/3 finetune", 40, 0),
        ]
    assert shown[-1] == "close"


def test_a_run_that_continues_shows_where_it_is(shown):
    with console.Bars(make_plan(), 7, 13, [row(1)]) as bars:
        bars.on_call(call(15, 2))
    assert shown == [("epoch 2/3 finetune", 40, 12), {"loss": "1.0000"}, 8, "close"]


def test_a_run_that_was_stopped_in_a_validation_continues_with_it(shown):
    with console.Bars(make_plan(), 7, 20, [row(1)]) as bars:
        bars.on_validation(eval_call(2))
        bars.on_epoch(epoch_of([row(1), row(2)]))
    assert shown == [("validation", 7, 0), 8, "close", ("epoch 3/3 finetune", 40, 0), "close"]


def test_after_the_last_epoch_there_is_none(shown):
    history = [row(1), row(2), row(3)]
    with console.Bars(make_plan(), 7, 30, history[:2]) as bars:
        bars.on_validation(eval_call(2))
        bars.on_epoch(epoch_of(history, is_last=True))
    assert shown == [("validation", 7, 0), 8, "close"]
    with console.Bars(make_plan(), 7, 30, history):
        pass
    assert shown[3:] == []


def test_epochs_of_one_step(shown):
    plan = make_plan(steps_per_epoch=1, schedule=ScheduleOptions(warmup_epochs=0, epochs=2))
    with console.Bars(plan, 4, 0, []) as bars:
        bars.on_call(call(1))
        bars.on_validation(eval_call(1))
        bars.on_epoch(epoch_of([row(1) | {"step": 1}]))
        bars.on_call(call(2))
    titles = [event[0] for event in shown if isinstance(event, tuple)]
    assert titles == ["epoch 1/2 finetune", "validation", "epoch 2/2 finetune", "validation"]
    assert shown.count("close") == 4
