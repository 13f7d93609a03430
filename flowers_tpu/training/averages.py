"""An exponential moving average of a model's weights, by count of updates.

Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046; the warm-up of the decay is that of
`tf.train.ExponentialMovingAverage`: the average of few updates is not that of the first weights.
"""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class Averages:
    """The averages of all weights of a model, moving statistics included.

    Make it under the strategy's scope. Each replica keeps and moves its own copy; they are equal,
    as what they average is.

    Args:
        variables: to be averaged; the averages begin with their values.
        decay: part of the average that stays at each update, once there were many.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        self._variables = [v for v in variables if v.dtype.is_floating]
        self._decay = decay
        own = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.count = tf.Variable(0, dtype=tf.int64, name="count", **own)
        self.values = [
            tf.Variable(tf.identity(v), name=f"average_{n}", **own)
            for n, v in enumerate(self._variables)
        ]

    @property
    def variables(self) -> list[tf.Variable]:
        """Those that it keeps: the count of updates, and the averages."""
        return [self.count, *self.values]

    def checkpoint(self) -> tf.train.Checkpoint:
        """Everything that the next update depends on, but the weights themselves."""
        return tf.train.Checkpoint(count=self.count, values=self.values)

    def update(self) -> None:
        """Takes an update of the variables in; call it within a replica, after the update."""
        count = tf.cast(self.count, tf.float32)
        decay = tf.minimum(self._decay, (1 + count) / (10 + count))
        self.count.assign_add(1)
        for average, variable in zip(self.values, self._variables, strict=True):
            kept = tf.cast(decay, average.dtype)
            average.assign(kept * average + (1 - kept) * tf.cast(variable, average.dtype))

    def begin_anew(self) -> None:
        """Makes the averages those of the variables as they are, of no update."""
        self.count.assign(0)
        for average, variable in zip(self.values, self._variables, strict=True):
            average.assign(variable.read_value())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages in the place of the weights, and the weights back at the end."""
        raw = [variable.read_value() for variable in self._variables]
        for variable, average in zip(self._variables, self.values, strict=True):
            variable.assign(average.read_value())
        try:
            yield
        finally:
            for variable, value in zip(self._variables, raw, strict=True):
                variable.assign(value)
