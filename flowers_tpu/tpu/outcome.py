"""What became of one step on one slice, and of a run on one slice."""

import dataclasses
import functools
import math

from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system.tpu_slices import Slice
from flowers_tpu.tpu.compiler import Compiled
from flowers_tpu.tpu.diagnosis import Problem
from flowers_tpu.tpu.lowering import Lowered, Step
from flowers_tpu.tpu.roofline import Roofline, roofline


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A step that was compiled for a slice, or why it was not.

    Attributes:
        slice_: what it was compiled for.
        step: the step.
        batch_size: photos of one replica.
        lowered: its program; None if there is none.
        compiled: the compiler's figures; None if it refused.
        problem: why it does not run on this slice; None if it does.
    """

    slice_: Slice
    step: Step
    batch_size: int
    lowered: Lowered | None = None
    compiled: Compiled | None = None
    problem: Problem | None = None

    @property
    def needed(self) -> float:
        """Bytes of memory of one device: the program's, and the state it leaves alone."""
        if self.compiled and self.lowered:
            return self.compiled.needed + self.lowered.other_state_bytes
        return self.problem.needed if self.problem else math.inf

    @property
    def headroom(self) -> float:
        """Bytes of memory of one device that are left; below 0 if it does not fit."""
        return self.slice_.available - self.needed

    @functools.cached_property
    def roofline(self) -> Roofline | None:
        """The bounds; None if it does not compile."""
        if not (self.compiled and self.lowered):
            return None
        return roofline(
            self.slice_,
            flops=self.compiled.flops,
            bytes_accessed=self.compiled.bytes_accessed,
            all_reduce_bytes=self.lowered.all_reduce_bytes,
            batch_size=self.batch_size,
            batch_bytes=self.lowered.batch_bytes,
        )


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run that was checked for a slice.

    Attributes:
        slice_: the slice.
        recipe: of the run on it.
        outcomes: of its steps; of the largest batch, if that was searched and found.
        largest_batch: most photos of one replica; 0 if not even one fits, None if not known.
    """

    slice_: Slice
    recipe: Recipe
    outcomes: list[Outcome]
    largest_batch: int | None = None
