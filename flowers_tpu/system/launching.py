"""Several workers on this machine: started, watched, and started again together."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from flowers_tpu.options import Options, knob
from flowers_tpu.system import terminal

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_LONGEST_PAUSE = 60.0  # seconds between two starts
_WENT_WELL = 600.0  # seconds, after which pauses begin anew
_STOPPED, _WRONG, _FAILED = 143, 2, 1  # exit codes of workers, see `errors`
_BETWEEN_LOOKS = 0.1


@dataclasses.dataclass(frozen=True)
class LaunchOptions(Options):
    """How many workers to start here, and what to do when they end."""

    topic: ClassVar[str] = "Launch"

    workers: int = knob(2, "How many workers to start on this machine.", least=1)
    max_restarts: int = knob(
        0,
        "How often to start all of them again after one has failed (exit code 1, or killed), from "
        "the last checkpoint; never after a wrong request or a stop.",
        least=0,
    )
    kill_after_seconds: float = knob(
        60.0,
        "How long the others have to end, once one has ended or a signal has come, before they are "
        "killed.",
        unit="seconds",
        above=0,
    )


def launch_all(command: Sequence[str], options: LaunchOptions) -> int:
    """Runs a command as several workers until all have ended; returns their exit code.

    Args:
        command: what Python runs, with its flags.
        options: how many, and how often.
    """
    restarts, in_a_row, ports_were_taken = 0, 0, False
    with _Signals() as signals:
        while True:
            begin, ports = time.monotonic(), free_ports(options.workers)
            code = _Attempt(command, ports, options.kill_after_seconds).run(signals)
            if code == _WRONG and not ports_were_taken and not all(map(_is_free, ports)):
                ports_were_taken = True
                terminal.say("launch: another program has taken a port; trying others")
                continue
            if code != _FAILED or signals.came or restarts == options.max_restarts:
                return _STOPPED if signals.came and code == _FAILED else code
            restarts += 1
            in_a_row = in_a_row + 1 if time.monotonic() - begin < _WENT_WELL else 1
            pause = min(2.0**in_a_row, _LONGEST_PAUSE)
            terminal.say(
                f"launch: starting all again in {pause:.0f} s "
                f"({restarts} of at most {options.max_restarts} times)"
            )
            signals.wait(pause)
            if signals.came:
                return _STOPPED


class _Signals:
    """Notes signals, to be passed on."""

    def __init__(self):
        self.came: list[int] = []
        self._waiting = threading.Event()

    def __enter__(self) -> "_Signals":
        self._handlers = {number: signal.signal(number, self._note) for number in _FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Waits, but for no longer than until a signal comes."""
        self._waiting.wait(seconds)

    def _note(self, number: int, _: object) -> None:
        self.came.append(number)
        self._waiting.set()


class _Attempt:
    """All workers once, from their start to the end of the last one."""

    def __init__(self, command: Sequence[str], ports: Sequence[int], seconds_to_end: float):
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._commands = [
            [sys.executable, *command, f"--workers={addresses}", f"--worker_index={index}"]
            for index in range(len(ports))
        ]
        if len(ports) == 1:
            self._commands = [[sys.executable, *command]]
        self._seconds_to_end = seconds_to_end

    def run(self, signals: _Signals) -> int:
        """Returns the exit code of the job: of the worst that a worker ended with."""
        with self._started() as processes:
            passed_on, deadline = len(signals.came), None
            while any(process.poll() is None for process in processes):
                for number in signals.came[passed_on:]:
                    _send(processes, number)
                passed_on = len(signals.came)
                ended = [process for process in processes if process.poll() is not None]
                if deadline is None and (ended or passed_on):
                    deadline = time.monotonic() + self._seconds_to_end
                if deadline is not None and time.monotonic() > deadline:
                    _send(processes, signal.SIGKILL)
                time.sleep(_BETWEEN_LOOKS)
            codes = [process.returncode for process in processes]
        for index, code in enumerate(codes):
            if code < 0:
                terminal.say(f"launch: worker {index} was ended by {signal.Signals(-code).name}")
        for code in (_WRONG, _STOPPED):
            if code in codes:
                return code
        return _FAILED if any(codes) else 0

    @contextlib.contextmanager
    def _started(self) -> Iterator[list[subprocess.Popen]]:
        processes, readers = [], []
        try:
            for index, command in enumerate(self._commands):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # what a terminal sends comes by way of this process
                )
                processes.append(process)
                readers.append(threading.Thread(target=_pass_on, args=(index, process)))
                readers[-1].start()
            yield processes
        finally:
            _send(processes, signal.SIGKILL)
            for reader in readers:
                reader.join()


def _pass_on(index: int, process: subprocess.Popen) -> None:
    for line in process.stdout or ():
        terminal.say(f"[{index}] {line.rstrip()}")


def _send(processes: Sequence[subprocess.Popen], number: int) -> None:
    """Sends a signal to all that still run, and to what they have started if it kills."""
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        listening = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listening]


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
