"""Whoever watches a run cannot harm it."""

import pytest
from absl import logging

from flowers_tpu.monitor.watchers import Watcher, Watchers
from tests.monitor.watching import call, epoch_of, eval_call, row

HOOKS = ("__enter__", "on_call", "on_validation", "on_epoch", "close")
WHOLE = ["__enter__", "on_call", "on_call", "on_validation", "on_epoch", "on_call", "close"]


class Remembers(Watcher):
    """Keeps which of its methods were called; fails in one of them, if that is given."""

    def __init__(self, fails_in="", error=None):
        self.fails_in, self.error, self.heard = fails_in, error or ValueError("full\ndisk"), []

    def hear(self, hook):
        self.heard.append(hook)
        if hook == self.fails_in:
            raise self.error

    def __enter__(self):
        self.hear("__enter__")
        return self

    def on_call(self, call):
        self.hear("on_call")

    def on_validation(self, call):
        self.hear("on_validation")

    def on_epoch(self, epoch):
        self.hear("on_epoch")

    def close(self):
        self.hear("close")


def watch(watchers):
    """As a run does: an epoch of two calls, then half of one."""
    with Watchers(iter(watchers)) as watching:
        watching.on_call(call(1))
        watching.on_call(call(2))
        watching.on_validation(eval_call())
        watching.on_epoch(epoch_of([row(1)]))
        watching.on_call(call(3))


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "absl" and r.levelname == "WARNING"]


def test_all_hear_everything_in_turn(caplog):
    watchers = [Remembers(), Remembers(), Watcher()]
    watch(watchers)
    assert [watcher.heard for watcher in watchers[:2]] == [WHOLE, WHOLE]
    assert not warnings(caplog)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_is_one_warning_and_it_watches_no_more(caplog, hook):
    before, failing, after = Remembers(), Remembers(hook), Remembers()
    watch([before, failing, after])
    assert before.heard == after.heard == WHOLE
    until = WHOLE[: WHOLE.index(hook) + 1]
    assert failing.heard == (until if hook == "close" else [*until, "close"])
    (warning,) = warnings(caplog)
    assert warning == (
        "Remembers: failed (ValueError: full); it watches no more, and the run goes on"
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_the_traceback_is_logged_at_high_verbosity(caplog, hook):
    before = logging.get_verbosity()
    logging.set_verbosity(logging.DEBUG)
    try:
        watch([Remembers(hook)])
    finally:
        logging.set_verbosity(before)
    (record,) = (r for r in caplog.records if r.getMessage() == "where it went wrong")
    assert record.exc_info[0] is ValueError


def test_what_cannot_even_be_closed_is_one_warning_all_the_same(caplog):
    class Broken(Remembers):
        def close(self):
            self.heard.append("close")
            raise OSError("no space left on device")

    broken, other = Broken("on_call"), Remembers()
    watch([broken, other])
    assert broken.heard == ["__enter__", "on_call", "close"] and other.heard == WHOLE
    assert len(warnings(caplog)) == 1


def test_several_may_fail_each_with_a_warning(caplog):
    watch([Remembers(hook) for hook in HOOKS])
    assert len(warnings(caplog)) == len(HOOKS)


def test_an_error_of_the_run_is_its_own(caplog):
    """It goes through, and all are closed."""
    watchers = [Remembers(), Remembers("close"), Remembers()]
    with pytest.raises(ZeroDivisionError), Watchers(watchers):
        1 / 0
    assert [watcher.heard for watcher in watchers] == [["__enter__", "close"]] * 3
    assert len(warnings(caplog)) == 1


def test_ctrl_c_within_a_watcher_ends_the_run():
    watchers = [Remembers("on_epoch", KeyboardInterrupt()), Remembers()]
    with pytest.raises(KeyboardInterrupt):
        watch(watchers)
    assert [watcher.heard[-1] for watcher in watchers] == ["close", "close"]


def test_a_watcher_does_nothing_by_itself():
    watch([Watcher()])


def test_the_row_of_an_epoch_is_the_last():
    history = [row(1), row(2)]
    assert epoch_of(history).row is history[1]
