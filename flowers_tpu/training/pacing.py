"""How many steps one compiled call does."""

import contextlib
import math
import time
from collections.abc import Iterator

# Long enough that starting a call costs nothing, short enough that a bar moves and a signal is
# heard.
SECONDS_PER_CALL = 1.0


class Pacer:
    """Chooses the number of steps of the next call by the time that the last one took.

    Args:
        fixed: the number, where it is given; 0: by time.
    """

    def __init__(self, fixed: int = 0):
        self._fixed = fixed
        self.calls = 0  # that were timed
        self.seconds = math.nan  # that the last one took
        self._step_seconds = math.inf

    @property
    def step_seconds(self) -> float:
        """How long a step of the last call took; NaN as long as that is not known."""
        return self._step_seconds if self.calls > 1 else math.nan

    def steps(self, most: int) -> int:
        """Returns how many steps to do next, 1 to `most`."""
        wanted = self._fixed or min(SECONDS_PER_CALL / self._step_seconds, most)
        return max(1, min(int(wanted), most))

    @contextlib.contextmanager
    def timed(self, num_steps: int) -> Iterator[None]:
        """Times a call of `num_steps`; the first, which compiles, is left out."""
        begin = time.monotonic()
        yield
        self.calls += 1
        self.seconds = time.monotonic() - begin
        if self.calls > 1:
            self._step_seconds = max(self.seconds / num_steps, 1e-6)
