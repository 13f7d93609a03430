"""Sides that take turns: A B A B …, so that whatever slows a machine down meets all of them.

Nothing here knows what is timed. A side opens a *run* for every round: a function of a number of
steps that does so many, waits until the device has finished, and returns the seconds it took. The
first steps of a round, in which an input pipeline fills its buffers, are not counted.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence

Run = Callable[[int], float]
Clock = Callable[[], float]

# Of a round's time, what a trial must take before the number of steps is worked out from it.
_TRIAL = 1 / 4


@dataclasses.dataclass(frozen=True)
class Side:
    """Something to be timed.

    Attributes:
        name: of the side, unlike those it takes turns with.
        photos_per_step: over all replicas.
        open: begins a round. What the run holds is given back when the round ends.
        multiple: steps come in multiples of this.
        run_in: part of a turn's steps that is done before the clock starts, so that buffers, and
            the processor's caches, are as they stay.
    """

    name: str
    photos_per_step: int
    open: Callable[[], Run]
    multiple: int = 1
    run_in: float = 1 / 4

    def whole(self, steps: float) -> int:
        """The least allowed number of steps that is not below `steps`, at least one multiple."""
        return max(1, math.ceil(steps / self.multiple)) * self.multiple


def timed(work: Callable[[int], object], clock: Clock = time.perf_counter) -> Run:
    """Makes a run of what does a number of steps and returns when they are done."""

    def run(steps: int) -> float:
        begin = clock()
        work(steps)
        return clock() - begin

    return run


def measure(
    sides: Sequence[Side],
    *,
    rounds: int,
    seconds: float,
    on_turn: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Returns the photos/s of each side in each round.

    A first round, not counted, warms everything up and finds how many steps take `seconds`.

    Args:
        sides: that take turns.
        rounds: that count.
        seconds: of a side's turn.
        on_turn: called with a side's name before each of its turns.
    """
    counts = {}
    for side in sides:
        on_turn(side.name)
        counts[side.name] = steps_that_take(seconds, side)

    values: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            on_turn(side.name)
            values[side.name].append(_rate(side, counts[side.name]))
    return values


def steps_that_take(seconds: float, side: Side) -> int:
    """Finds by trial how many steps of a side take so long; the first ones are not counted."""
    run, steps = side.open(), side.whole(1)
    run(steps)
    while (took := run(steps)) < seconds * _TRIAL:
        # Toward the goal, but not on the word of a few steps in a buffer.
        steps = side.whole(steps * min(8.0, max(2.0, seconds * _TRIAL / max(took, 1e-9))))
    return side.whole(steps * seconds / took)


def _rate(side: Side, steps: int) -> float:
    """Returns the photos/s of a turn of so many steps."""
    run = side.open()
    if side.run_in:
        run(side.whole(steps * side.run_in))
    return steps * side.photos_per_step / run(steps)


def per_round(function: Callable[..., float], *values: Iterable[float]) -> list[float]:
    """Applies a function to the values of each round, as for a ratio of two sides."""
    return [function(*row) for row in zip(*values, strict=True)]
