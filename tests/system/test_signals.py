import os
import signal
import subprocess
import sys
import threading

import pytest

from flowers_tpu.system.errors import StoppedError
from flowers_tpu.system.signals import Signals

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
ALL = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def not_under_nohup():
    """As these tests may be run under it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_noted_and_raised_when_asked_for(number, capsys):
    with Signals() as signals:
        signals.check()
        signal.raise_signal(number)  # nothing happens here yet
        assert signals.stop_requested
        with pytest.raises(StoppedError) as caught:
            signals.check()
    assert caught.value.exit_code == 143
    message = capsys.readouterr().err
    assert message.startswith(f"\n{number.name}: ")
    assert "a second SIGTERM or Ctrl-C exits at once" in message


def test_under_nohup_the_end_of_the_terminal_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signals.check()
            signal.raise_signal(signal.SIGUSR1)
            assert signals.stop_requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_a_signal_nothing_is_raised():
    with Signals() as signals:
        signals.check()
    assert not signals.stop_requested


@pytest.mark.parametrize("error", [None, ValueError])
def test_handlers_are_put_back(error):
    numbers = ALL
    before = [signal.getsignal(number) for number in numbers]
    try:
        with Signals():
            assert [signal.getsignal(number) for number in numbers] != before
            if error:
                raise error
    except ValueError:
        pass
    assert [signal.getsignal(number) for number in numbers] == before


@SIGNALS
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(first, number):
    code = f"""
import signal
from flowers_tpu.system.signals import Signals
with Signals():
    signal.raise_signal({int(first)})
    print("saving", flush=True)
    signal.raise_signal({int(number)})
    print("too late", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "saving\n"
    assert result.returncode == 128 + number


@SIGNALS
def test_a_second_signal_is_heard_while_compiled_code_runs(number):
    # Like a compiled call, this one lets other threads run but no handler of signals. It would
    # take a minute.
    code = f"""
import hashlib, os, threading
from flowers_tpu.system.signals import Signals
with Signals():
    for delay in (0.1, 0.3):
        threading.Timer(delay, os.kill, (os.getpid(), {int(number)})).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=20)
    assert result.returncode == 128 + number


@pytest.mark.parametrize("warning", [signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("warned_first", [True, False])
def test_a_warning_is_not_one_of_two_signals(warning, warned_first, capsys):
    """A scheduler warns, then ends it; or the connection goes after somebody pressed Ctrl-C."""
    order = (warning, signal.SIGTERM) if warned_first else (signal.SIGTERM, warning)
    with Signals() as signals:
        for number in order:
            signal.raise_signal(number)
        assert signals.stop_requested, "and the process is still there"
    assert capsys.readouterr().err.count("then saving") == 1


def test_in_another_thread_it_goes_on_without_signals(capsys):
    requested = []

    def work():
        with Signals() as signals:
            signals.check()
            requested.append(signals.stop_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]
    assert capsys.readouterr().out.count("not caught here") == 1


def test_neither_threads_nor_files_are_left():
    before, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Signals():
            pass
    # Those of the tests before may end meanwhile: only what is new counts.
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= before
    assert len(os.listdir("/proc/self/fd")) <= files
