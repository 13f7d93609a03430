"""Ways a process is told to end, as a question that long work asks between two pieces of it."""

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any

from flowers_tpu.system import terminal
from flowers_tpu.system.errors import StoppedError

# A person who stops it, or who waits no longer: a second one of these ends the process at once.
_URGENT = (signal.SIGTERM, signal.SIGINT)
# The terminal is gone, or a scheduler warns that time is nearly up: others will follow.
_WARNINGS = (signal.SIGHUP, signal.SIGUSR1)


class Signals:
    """While entered, the first signal is only noted; a second urgent one ends the process at once.

    Python runs its handlers between two statements, so not while a compiled call runs. For the
    second signal a thread hears of it at once, by the file descriptor that Python wakes up.
    (TensorFlow's own preemption handler does nothing on Cloud TPU VMs.)

    Attributes:
        stop_requested: whether a signal has come.
    """

    def __init__(self):
        self.stop_requested = False
        self._urgent = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            terminal.note("Signals are not caught here, as this is not the main thread.")
            return self
        heard = {*_URGENT, *_WARNINGS}
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            heard.remove(signal.SIGHUP)  # by `nohup`: the work goes on without the terminal
        self._handlers = {s: signal.signal(s, self._handle) for s in heard}
        self._heard, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno())
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        if not self._handlers:
            return
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wakeup.close()  # ends the thread

    def check(self) -> None:
        """Raises StoppedError once a signal has come."""
        if self.stop_requested:
            raise StoppedError("stopped; the same command continues")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._urgent += number in _URGENT
        if self._urgent > 1:
            os._exit(128 + number)
        if self.stop_requested:
            return
        self.stop_requested = True
        terminal.say(
            f"\n{signal.Signals(number).name}: finishing the running steps, then saving; "
            "a second SIGTERM or Ctrl-C exits at once",
            file=sys.stderr,
        )

    def _listen(self) -> None:
        count = 0
        while received := self._heard.recv(1):
            count += received[0] in _URGENT
            if count > 1:
                os._exit(128 + received[0])
        self._heard.close()
