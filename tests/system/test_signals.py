import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flowers_tpu.system.errors import StoppedError
from flowers_tpu.system.signals import Signals

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
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
    assert "a second signal exits at once" in message


def test_without_a_signal_nothing_is_raised():
    with Signals() as signals:
        signals.check()
    assert not signals.stop_requested


@pytest.mark.parametrize("error", [None, ValueError])
def test_handlers_are_put_back(error):
    numbers = (signal.SIGTERM, signal.SIGINT)
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


def test_neither_threads_nor_files_are_left():
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Signals():
            pass
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
