"""Where the wall time of a run goes: what moved training on, and what took the rest.

Goodput is the share of the wall time, over all processes that worked on a run, in which it moved
on. A row is written at every save, so that of a process that is killed all is known but the time
after its last save: that work is done again, and its time, up to the last sign of life, is lost.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator

import pandas as pd

from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.system import folders
from flowers_tpu.training.calls import Call

FILE = "goodput.csv"
COLUMNS = (
    *("began", "wall_seconds", "start_seconds", "compile_seconds", "train_seconds"),
    *("input_seconds", "validation_seconds", "checkpoint_seconds", "lost_seconds"),
)


@dataclasses.dataclass
class Goodput:
    """Adds up what a process does with its time.

    Args:
        folder: of the run.
        began_at: when the command began, seconds of the clock.
        last_life: when an earlier process was last seen working on the run, seconds since 1970;
            None if there was none, or it is not known.
        clock: gives the time, seconds.
        now: gives the time, seconds since 1970.
    """

    folder: RunFolder
    began_at: float
    last_life: float | None = None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._seconds = dict.fromkeys(COLUMNS[2:-1], 0.0)
        self._began = self.now() - (self.clock() - self.began_at)
        self._earlier = self._read_earlier()
        self._started = False

    @contextlib.contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Adds the time that passes within to `validation` or `checkpoint`."""
        begin = self.clock()
        yield
        self._seconds[f"{what}_seconds"] += self.clock() - begin

    def starts(self) -> None:
        """Ends the time of the start; later calls do nothing."""
        if not self._started:
            self._seconds["start_seconds"] = self.clock() - self.began_at
            self._started = True

    def add(self, call: Call) -> None:
        """Adds a compiled call of training; the first of a stage compiles."""
        self._seconds["input_seconds"] += call.input_seconds
        kind = "compile_seconds" if call.compiles else "train_seconds"
        self._seconds[kind] += call.seconds - call.input_seconds
        with contextlib.suppress(OSError):  # a sign of life; there is no such file on `gs://`
            os.utime(self.folder.file(folders.LOCK))

    def write(self) -> None:
        """Writes the row of this process; call it after a save."""
        row = {"began": self._began, "wall_seconds": self.clock() - self.began_at, **self._seconds}
        table = pd.DataFrame([*self._earlier, {**row, "lost_seconds": 0.0}], columns=list(COLUMNS))
        self.folder.write_table(FILE, table)

    def _read_earlier(self) -> list[dict[str, float]]:
        """The rows of earlier processes; of the last one it is known now what was lost."""
        rows = self.folder.read_table(FILE).to_dict("records")
        if rows and self.last_life is not None:
            last = rows[-1]
            last["lost_seconds"] = max(0.0, self.last_life - last["began"] - last["wall_seconds"])
        return rows


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Returns the seconds of each kind over all processes, `other`, `wall`, and `goodput`.

    Args:
        table: as in `goodput.csv`; one of before has fewer columns.
    """
    sums = table.reindex(columns=COLUMNS).drop(columns="began").sum()
    wall = float(sums["wall_seconds"] + sums["lost_seconds"])
    parts = {name.removesuffix("_seconds"): float(sums[name]) for name in COLUMNS[2:]}
    other = wall - sum(parts.values())
    return {**parts, "other": other, "wall": wall, "goodput": parts["train"] / wall}
