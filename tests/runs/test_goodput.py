"""Where the wall time of a run goes, by a clock that is set by hand."""

import os

import pandas as pd
import pytest

from flowers_tpu.runs import goodput
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.system import folders
from flowers_tpu.training.calls import Call, Decision


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def call(seconds, compiles=False, waits=0.0):
    return Call(1, 1, 0.1, 1.0, 1.0, 8.0, seconds, waits, compiles, (), Decision(1))


def make(folder, clock, last_life=None, since_1970=5000.0):
    begin = clock()
    return goodput.Goodput(
        *(RunFolder(str(folder)), begin, last_life, clock),
        now=lambda: since_1970 + clock() - begin,
    )


def test_a_process_by_hand(tmp_path):
    """Start 10 s, compiling 3, steps 20, waiting 5, validation 4, saving 2, others 1."""
    clock = Clock()
    spent = make(tmp_path, clock)
    clock.time += 10
    spent.starts()
    for seconds, compiles, waits in ((5, True, 2), (12, False, 0), (11, False, 3)):
        clock.time += seconds
        spent.add(call(seconds, compiles, waits))
    spent.starts()  # the next epoch's changes nothing
    for what, seconds in (("validation", 4), ("checkpoint", 2)):
        with spent.spent_on(what):
            clock.time += seconds
    clock.time += 1
    spent.write()
    clock.time += 50  # killed: nobody writes this down
    table = RunFolder(str(tmp_path)).read_table(goodput.FILE)
    assert table.iloc[0].to_dict() == {
        **{"began": 5000, "wall_seconds": 45, "start_seconds": 10, "compile_seconds": 3},
        **{
            "train_seconds": 20,
            "input_seconds": 5,
            "validation_seconds": 4,
            "checkpoint_seconds": 2,
        },
        "lost_seconds": 0,
    }
    assert goodput.summary(table) == {
        **{
            "start": 10,
            "compile": 3,
            "train": 20,
            "input": 5,
            "validation": 4,
            "checkpoint": 2,
            "lost": 0,
        },
        **{"other": 1, "wall": 45, "goodput": 20 / 45},
    }


def test_what_a_killed_process_did_after_its_last_save_is_lost(tmp_path):
    clock = Clock()
    first = make(tmp_path, clock)
    first.starts()
    clock.time += 30
    first.add(call(30))
    first.write()
    # Its last sign of life came 12 s after that; the next process begins much later.
    second = make(tmp_path, clock, last_life=5042.0, since_1970=9000.0)
    second.starts()
    clock.time += 18
    second.add(call(18))
    second.write()
    table = RunFolder(str(tmp_path)).read_table(goodput.FILE)
    assert list(table["lost_seconds"]) == [12, 0]
    found = goodput.summary(table)
    assert found["wall"] == 60 and found["goodput"] == pytest.approx(48 / 60)


def test_a_table_of_before_has_no_time_of_waiting():
    row = {"began": 0.0, "wall_seconds": 40.0, "start_seconds": 10.0, "compile_seconds": 3.0}
    row |= {"train_seconds": 20.0, "validation_seconds": 4.0, "checkpoint_seconds": 2.0}
    found = goodput.summary(pd.DataFrame([row | {"lost_seconds": 0.0}]))
    assert (found["input"], found["other"], found["goodput"]) == (0, 1, 0.5)


def test_a_call_is_a_sign_of_life(tmp_path):
    assert folders.last_life(str(tmp_path)) is None
    (tmp_path / folders.LOCK).touch()
    os.utime(tmp_path / folders.LOCK, (1, 1))
    assert folders.last_life(str(tmp_path)) == 1
    make(tmp_path, Clock()).add(call(1.0))
    assert folders.last_life(str(tmp_path)) > 1e9


def test_without_a_lock_as_on_a_bucket_it_works_too(tmp_path):
    spent = make(tmp_path, Clock())
    spent.add(call(1.0))
    spent.write()
    assert isinstance(RunFolder(str(tmp_path)).read_table(goodput.FILE), pd.DataFrame)
