"""What is drawn for a training example: a few numbers, a function of (seed, the example's number).

Everything done to a photo is a function of the photo and its draws, so where and when that happens
makes no difference.
"""

import dataclasses

import tensorflow as tf

# The names of the draws, each uniform in [0, 1).
NAMES = (
    *("flip_left_right", "flip_up_down", "saturation", "crop_side", "crop_top", "crop_left"),
    *("brightness", "contrast", "hue", "rotation", "zoom", "shift_down", "shift_right"),
    *("erase", "erase_area", "erase_ratio", "erase_top", "erase_left"),
)
NUM_DRAWS = len(NAMES)

# Examples drawn for at once: a constant, since it decides what is drawn.
_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws of a batch, by name.

    Attributes:
        table: `[batch, NUM_DRAWS]` float32 in [0, 1).
    """

    table: tf.Tensor

    def of(self, name: str) -> tf.Tensor:
        """Returns a draw of each example, `[batch]`."""
        return self.table[:, NAMES.index(name)]

    def between(self, name: str, lower: float, upper: float) -> tf.Tensor:
        """Returns a draw of each example, uniform between two numbers, `[batch]`."""
        return lower + self.of(name) * (upper - lower)


def draws_from(seed: int, first: tf.Tensor) -> tf.data.Dataset:
    """Returns the draws of the `first` example of a run and all after it, `[NUM_DRAWS]` each."""
    blocks = tf.data.Dataset.range(first // _BLOCK, tf.int64.max)
    return blocks.flat_map(
        lambda block: tf.data.Dataset.from_tensor_slices(_draw_block(seed, block))
    ).skip(first % _BLOCK)


def draw(seed: int, number: int) -> tf.Tensor:
    """Returns the draws of the `number`-th example of a run, `[NUM_DRAWS]` float32 in [0, 1)."""
    return _draw_block(seed, tf.constant(number // _BLOCK, tf.int64))[number % _BLOCK]


def _draw_block(seed: int, block: tf.Tensor) -> tf.Tensor:
    seeds = tf.stack([tf.cast(seed, tf.int64), block])
    return tf.random.stateless_uniform([_BLOCK, NUM_DRAWS], seeds, alg="philox")
