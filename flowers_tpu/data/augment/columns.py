"""Columns of a table of numbers, by name."""

import dataclasses
from typing import ClassVar

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Columns:
    """Numbers of each example of a batch, by name.

    Attributes:
        table: `[batch, names]` float32 in [0, 1).
    """

    names: ClassVar[tuple[str, ...]]
    table: tf.Tensor

    def of(self, name: str) -> tf.Tensor:
        """Returns a number of each example, `[batch]`."""
        return self.table[:, self.names.index(name)]

    def between(self, name: str, lower: float, upper: float) -> tf.Tensor:
        """Returns a number of each example, moved from [0, 1) to between two others, `[batch]`."""
        return lower + self.of(name) * (upper - lower)
