"""A scale of the loss, so that gradients do not vanish in float16.

Micikevicius et al., "Mixed Precision Training", https://arxiv.org/abs/1710.03740, section 3.2, with
the scale moved as Keras' `LossScaleOptimizer` does. One scale is for all optimizers of a step.
"""

import tensorflow as tf

_FIRST = 2.0**15
_GOOD_STEPS = 2000  # in a row, after which the scale doubles


class LossScale(tf.Module):
    """What the loss is multiplied by before the backward pass; make it under a strategy's scope.

    Attributes:
        value: float32, at least 1.
        good_steps: int64, steps since the scale has moved.
    """

    def __init__(self):
        super().__init__()
        one_for_all = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.value = tf.Variable(_FIRST, dtype=tf.float32, name="loss_scale", **one_for_all)
        self.good_steps = tf.Variable(0, dtype=tf.int64, name="good_steps", **one_for_all)

    def update(self, updates: tf.Tensor) -> None:
        """Halves the scale after a step that was left out; doubles it after many that were not.

        Args:
            updates: bool, whether the step has updated the weights.
        """
        good = tf.where(updates, self.good_steps + 1, 0)
        doubles = good >= _GOOD_STEPS
        doubled = tf.where(doubles, tf.minimum(2 * self.value, tf.float32.max), self.value)
        self.value.assign(tf.where(updates, doubled, tf.maximum(self.value / 2, 1)))
        self.good_steps.assign(tf.where(doubles, tf.zeros_like(good), good))
