"""What became of one step on one slice."""

import dataclasses
import functools
import math

from flowers_tpu.generations import Slice
from flowers_tpu.tpu.compiler import Compiled
from flowers_tpu.tpu.diagnosis import Problem
from flowers_tpu.tpu.lowering import Lowered
from flowers_tpu.tpu.roofline import Roofline, roofline


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A step that was compiled for a slice, or why it was not.

    Attributes:
        slice_: what it was compiled for.
        step: name of the step.
        lowered: its program; None where there is none.
        compiled: the compiler's figures; None where it refused.
        problem: why it does not run on this slice; None if it does.
    """

    slice_: Slice
    step: str
    lowered: Lowered | None = None
    compiled: Compiled | None = None
    problem: Problem | None = None

    @property
    def needed(self) -> float:
        """Bytes of memory of one device: the program's, and the state it leaves alone."""
        if self.compiled:
            return self.compiled.needed + self.lowered.other_state_bytes
        return self.problem.needed if self.problem else math.inf

    @functools.cached_property
    def roofline(self) -> Roofline | None:
        """The bounds; None where it does not compile."""
        if not self.compiled:
            return None
        return roofline(
            self.slice_,
            flops=self.compiled.flops,
            bytes_accessed=self.compiled.bytes_accessed,
            all_reduce_bytes=self.lowered.all_reduce_bytes,
            batch_size=self.lowered.batch_size,
            batch_bytes=self.lowered.batch_bytes,
        )
