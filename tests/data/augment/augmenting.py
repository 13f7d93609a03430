"""Draws, and both routes of augmentation on NumPy arrays."""

import functools

import numpy as np
import tensorflow as tf

from flowers_tpu.data.augment import apply
from flowers_tpu.data.augment.draws import NAMES, NUM_DRAWS, draws_from

LARGEST = float(np.float32(1 - 2**-23))  # the largest draw there is


def draws_of(**named):
    """Draws of 0.75 (no flip), but for the named ones."""
    values = np.full(NUM_DRAWS, 0.75, np.float32)
    for name, value in named.items():
        values[NAMES.index(name)] = value
    return tf.constant(values)


@functools.cache
def drawn(seed, first, count):
    """The draws of so many examples, `[count, NUM_DRAWS]`."""
    dataset = draws_from(seed, tf.constant(first, tf.int64)).batch(count)
    return next(dataset.as_numpy_iterator())


def on_host(photo, draws, image_size, augmentation):
    photo, draws = tf.constant(photo), tf.constant(draws)
    result = apply.on_host(photo, draws, image_size=image_size, augmentation=augmentation)
    assert (result.shape, result.dtype) == ((image_size, image_size, 3), tf.uint8)
    return result.numpy()


def on_device(images, draws, image_size, augmentation):
    """Without XLA: see `routes` for the same with it."""
    images, draws = tf.constant(images), tf.constant(draws)
    return apply.on_device(images, draws, image_size=image_size, augmentation=augmentation).numpy()
