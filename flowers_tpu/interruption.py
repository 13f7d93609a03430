"""SIGTERM and Ctrl-C as a question that long work asks between two pieces of it."""

import os
import signal
import sys
from types import FrameType

from flowers_tpu.errors import StoppedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """While entered, the first signal is only noted; a second one ends the process at once.

    (TensorFlow's own preemption handler does nothing on Cloud TPU VMs.)
    """

    def __init__(self):
        self.requested = False
        self._handlers = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises StoppedError once a signal has come."""
        if self.requested:
            raise StoppedError("stopped; the same command continues")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested = True
        print(
            f"\n{signal.Signals(number).name}: finishing the running steps, then saving; "
            "a second signal exits at once",
            file=sys.stderr,
            flush=True,
        )
