"""Which examples, in which order: a function of (seed, epoch, shuffle buffer).

The same function orders the records themselves and their indices, so what a step saw can be told
without reading anything, and a run that resumes finds its place by counting.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

# Shards that are read at once. A constant, since it decides the order.
READERS = 4


def ordered(
    read_shard: Callable[[tf.Tensor], tf.data.Dataset],
    num_shards: int,
    *,
    seed: int,
    epoch: int | tf.Tensor,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """Returns one epoch of a split's elements in training order.

    The shards are permuted, `READERS` of them are read in turn, and the result passes through a
    shuffle buffer. An epoch is a permutation of the split: each element comes once.

    Args:
        read_shard: maps the number of a shard (int64 scalar) to the dataset of its elements.
        num_shards: how many shards there are.
        seed: of the run.
        epoch: the epoch's number, from 0; may be a tensor.
        shuffle_buffer: elements among which the next one is chosen; 1 for none.
    """
    epoch = tf.cast(epoch, tf.int64)
    shard_seed, element_seed = tf.unstack(
        tf.random.stateless_uniform([2], [tf.constant(seed, tf.int64), epoch], None, None, tf.int64)
    )
    shards = tf.random.experimental.stateless_shuffle(
        tf.range(num_shards, dtype=tf.int64), tf.stack([shard_seed, epoch])
    )
    elements = tf.data.Dataset.from_tensor_slices(shards).interleave(
        read_shard,
        cycle_length=READERS,
        block_length=1,
        num_parallel_calls=READERS,
        deterministic=True,
    )
    if shuffle_buffer == 1:
        return elements

    def shuffled(_: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes in the global seed. In here this forgets that of this function's graph
        # only, so the caller's is neither used nor changed.
        tf.random.set_seed(None)
        return elements.shuffle(shuffle_buffer, seed=element_seed, reshuffle_each_iteration=False)

    return tf.data.Dataset.range(1).flat_map(shuffled)


def epoch_indices(
    counts: Sequence[int], *, seed: int, epoch: int, shuffle_buffer: int
) -> np.ndarray:
    """Returns the training order of one epoch as indices into the split's file order.

    Args:
        counts: the number of records of each shard.
        seed: of the run.
        epoch: from 0.
        shuffle_buffer: as in `ordered`.

    Returns:
        `[examples]` int64, a permutation of `range(sum(counts))`.
    """
    ends = np.cumsum(counts, dtype=np.int64)
    begins = tf.constant(ends - np.asarray(counts))
    elements = ordered(
        lambda shard: tf.data.Dataset.range(tf.gather(begins, shard), tf.gather(ends, shard)),
        len(counts),
        seed=seed,
        epoch=epoch,
        shuffle_buffer=shuffle_buffer,
    )
    return np.fromiter(elements.as_numpy_iterator(), np.int64, count=int(ends[-1]))
