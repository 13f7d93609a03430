"""What is drawn for a training example: numbers by (seed, the example's number, name of the draw).

Everything done to a photo is a function of the photo and its draws, so where and when that happens
makes no difference. And no draw depends on which others there are: a new augmentation leaves the
results of all recipes that do not use it as they were.
"""

import zlib
from typing import ClassVar

import tensorflow as tf

from flowers_tpu.data.augment.columns import Columns
from flowers_tpu.data.augment.operations import OPERATIONS

# The names of the draws, each uniform in [0, 1): those that say where the pixels come from, then
# those of the operations, and of mixing.
NAMES = (
    *("flip_left_right", "flip_up_down", "crop_side", "crop_top", "crop_left"),
    *("rotation", "zoom", "shift_down", "shift_right"),
    *(name for operation in OPERATIONS for name in operation.draws),
    *("trivial", "mix", "mix_kind", "mix_share", "mix_top", "mix_left"),
)
NUM_DRAWS = len(NAMES)

# Examples drawn for at once: a constant, since it decides what is drawn.
_BLOCK = 1024


class Draws(Columns):
    """The draws of a batch, by name: `table` is `[batch, NUM_DRAWS]`."""

    names: ClassVar[tuple[str, ...]] = NAMES


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
    columns = [
        tf.random.stateless_uniform([_BLOCK], tf.stack([_key(seed, name), block]), alg="philox")
        for name in NAMES
    ]
    return tf.stack(columns, axis=1)


def _key(seed: int, name: str) -> tf.Tensor:
    """A number for a seed below 2^31 and a name; another for each pair."""
    return tf.constant((zlib.crc32(name.encode()) >> 1 << 32) + seed, tf.int64)
