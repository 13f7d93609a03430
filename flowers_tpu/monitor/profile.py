"""A profile of some steps, for TensorBoard's profiler."""

import tensorflow as tf

from flowers_tpu.monitor.watchers import Watcher
from flowers_tpu.system import files, terminal
from flowers_tpu.training.calls import Call


class Profile(Watcher):
    """Profiles some steps; it always ends well, however the run does.

    Args:
        folder: where it goes.
        steps: it begins after the first of these steps of the run and ends after the second.
        step: steps done when the run begins or continues.
    """

    def __init__(self, folder: str, steps: tuple[int, int], step: int):
        self._folder, self._step = folder, step
        self._begin, self._end = steps
        self._name = f"--profile_steps={self._begin},{self._end}"
        self._waits = step <= self._begin
        self._runs = False

    def __enter__(self) -> "Profile":
        if not self._waits:
            terminal.note(
                f"{self._name}: nothing is profiled, {self._step:,} steps are done already."
            )
        self._at(self._step)
        return self

    def on_call(self, call: Call) -> None:
        """Begins or ends if it is time to, between two compiled calls."""
        self._at(call.step)

    def close(self) -> None:
        """Ends a profile that is under way."""
        if self._waits:
            terminal.note(f"{self._name}: nothing was profiled, the run did not come so far.")
        elif self._runs:
            self._stop("cut short, as the run ended before")

    def _at(self, step: int) -> None:
        if self._waits and step >= self._begin:
            self._waits, self._runs = False, True
            tf.profiler.experimental.start(self._folder)
        elif self._runs and step >= self._end:
            self._stop("written")

    def _stop(self, how: str) -> None:
        self._runs = False
        tf.profiler.experimental.stop()
        terminal.note(
            f"{self._name}: profile {how}: {files.join(self._folder, 'plugins', 'profile')}"
        )
