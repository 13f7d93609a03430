"""Bars in a terminal, widgets in a notebook, plain lines elsewhere, as `--verbosity` says."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
from absl import logging

from flowers_tpu.system import terminal


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    return clock


@pytest.fixture
def verbosity():
    """Sets `--verbosity`."""
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


def run_bar(clock, total, updates, **how):
    """Updates a bar by (seconds later, how many more)."""
    with terminal.bar(total, "validation", **how) as bar:
        for seconds, count in updates:
            clock.now += seconds
            bar.update(count)


# If output goes to a file or a pipe


def test_short_work_writes_nothing(clock, capfd):
    run_bar(clock, 100, [(1.2, 25)] * 4)
    assert capfd.readouterr() == ("", "")


def test_each_quarter_and_what_is_left(clock, capfd):
    # 512 photos in each 1.25 s: 25 % would come after 2.5 s, too soon.
    run_bar(clock, 4096, [(1.25, 512)] * 8)
    assert capfd.readouterr().err == (
        "validation: 2,048 of 4,096 photos (50 %), 410/s, 5 s left\n"
        # 75 % comes only 2.5 s after the line before, and 100 % needs no line.
    )


def test_a_line_every_half_minute_in_long_work(clock, capfd):
    run_bar(clock, 100_000, [(10, 10)] * 9, unit="pictures")
    assert capfd.readouterr().err.splitlines() == [
        f"validation: {done} of 100,000 pictures (0 %), 1.0/s, 27 h {minutes} min left"
        for done, minutes in ((30, 46), (60, 45), (90, 45))
    ]


def test_rate_is_that_since_the_line_before(clock, capfd):
    # Compiling takes a minute, and then each photo a second.
    run_bar(clock, 130, [(60, 1), *[(1, 1)] * 65])
    first, second, *_ = capfd.readouterr().err.splitlines()
    assert first == "validation: 1 of 130 photos (0 %), 0.0/s, 2 h 9 min left"
    assert second == "validation: 31 of 130 photos (23 %), 1.0/s, 1 min 39 s left"


def test_what_had_been_done_before_is_no_part_of_the_rate(clock, capfd):
    run_bar(clock, 1000, [(30, 300)], initial=500)
    assert capfd.readouterr().err == "validation: 800 of 1,000 photos (80 %), 10/s, 20 s left\n"


def test_values_stand_after_the_rate(clock, capfd):
    with terminal.bar(100, "epoch 1/2") as bar:
        clock.now += 31
        bar.set_postfix(loss="0.1234", rate="1e-3")
        bar.update(50)
    err = capfd.readouterr().err
    assert err == "epoch 1/2: 50 of 100 photos (50 %), 1.6/s, 31 s left, loss 0.1234, rate 1e-3\n"


@pytest.mark.parametrize(("total", "done"), [(0, 0), (10, 25), (10, 0)])
def test_odd_totals(clock, capfd, total, done):
    """Nothing to do, more than was thought (a last batch that is filled up), no progress yet."""
    run_bar(clock, total, [(31, done)])
    assert capfd.readouterr().err == (
        "validation: 0 of 10 photos (0 %), 0.0/s\n" if (total, done) == (10, 0) else ""
    )


# Verbosity


def test_quiet_leaves_results_only(clock, verbosity, capfd):
    verbosity(-2)
    run_bar(clock, 100, [(40, 10)] * 3)
    terminal.note("how it goes")
    terminal.say("a result")
    assert capfd.readouterr() == ("a result\n", "")


def test_by_default_there_is_all(clock, capfd):
    run_bar(clock, 100, [(40, 10)] * 3)
    terminal.note("how it goes")
    out, err = capfd.readouterr()
    assert out == "how it goes\n" and len(err.splitlines()) == 3


# In a terminal


def screen(text: str) -> list[str]:
    """What a terminal shows in the end: a carriage return goes back, what follows overwrites."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def in_terminal(code: str, interrupt_at: str = "") -> tuple[str, int]:
    """Runs Python code in a terminal of its own; returns all it wrote, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
            if interrupt_at and interrupt_at.encode() in written:
                process.send_signal(signal.SIGINT)
                interrupt_at = ""
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        watchdog.cancel()
        os.close(ours)
    return written.decode(), process.wait()


BEGIN = """
import signal, time
# What is started in the background, as this test may be, ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from absl import flags, logging
from flowers_tpu.system import terminal
from flowers_tpu.system.signals import Signals
flags.FLAGS([''])
logging.use_absl_handler()
terminal.log_beside_bars()
"""


def test_lines_and_log_lines_do_not_break_a_bar():
    text, code = in_terminal(f"""{BEGIN}
with terminal.bar(4, "drawing", initial=1) as bar:
    for n in range(3):
        bar.update()
        terminal.say(f"line {{n}}")
        logging.warning("warning %d", n)
""")
    assert code == 0
    assert "drawing:  25%" in text, "it is shown at once, with what had been done before"
    assert "drawing: 100%" in text
    expected = [line for n in range(3) for line in (f"line {n}", f"warning {n}")]
    assert screen(text) == [*expected, ""], "nothing is left of the bar, and nothing doubled"


def test_quiet_shows_no_bar():
    text, _ = in_terminal(f"""{BEGIN}
logging.set_verbosity(-2)
with terminal.bar(4, "drawing") as bar:
    bar.update()
    terminal.say("result")
""")
    assert text == "result\r\n"


def test_a_signal_leaves_the_terminal_clean():
    text, code = in_terminal(
        f"""{BEGIN}
with Signals() as signals, terminal.bar(4, "drawing") as bar:
    bar.set_postfix(loss=1)
    for _ in range(2000):
        time.sleep(0.01)
        if signals.stop_requested:
            bar.update()
            break
print("after")
""",
        interrupt_at="loss=1",
    )
    assert code == 0
    message = (
        "SIGINT: finishing the running steps, then saving; a second SIGTERM or Ctrl-C exits at once"
    )
    assert [line for line in screen(text) if line] == [message, "after"]


def test_an_error_leaves_the_terminal_clean():
    text, code = in_terminal(
        f"""{BEGIN}
try:
    with terminal.bar(4, "drawing") as bar:
        bar.set_postfix(loss=1)
        for _ in range(2000):
            time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
""",
        interrupt_at="loss=1",
    )
    assert code == 0
    assert [line for line in screen(text) if line] == ["interrupted"]


# In a notebook


class Widgets(type(terminal.tqdm)("_", (terminal.tqdm,), {"__module__": "tqdm.notebook"})):
    """Stands in for the bars that tqdm makes of `ipywidgets`."""


def test_a_notebook_has_its_widgets_though_it_is_no_terminal(monkeypatch):
    monkeypatch.setattr(terminal, "tqdm", Widgets)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with terminal.bar(4, "drawing") as bar:
        assert isinstance(bar, Widgets) and not bar.disable
        bar.update(2)
        assert (bar.n, bar.total, bar.leave) == (2, 4, False)


def test_somebody_who_stops_reading_does_not_end_the_work():
    """As `head` does, whose end of the pipe is closed after some lines."""
    code = """
import sys, time
from flowers_tpu.system import terminal
for number in range(200):
    terminal.say("x" * 1000)
    terminal.note("y" * 1000)
print("done", file=sys.stderr)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "done\n"
    assert process.wait(30) == 0
