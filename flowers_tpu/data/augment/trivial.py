"""TrivialAugment: one operation a photo, each as likely, at a strength that is drawn.

Müller and Hutter, 2021, arXiv:2103.10158, with the operations that there are here. Nothing has to
be tuned, so that the ranges are fixed.
"""

import dataclasses

import tensorflow as tf

from flowers_tpu.data.augment.draws import NAMES, Draws
from flowers_tpu.data.augment.options import TRIVIAL_RANGES, Augmentation

# By the draw that says how strong it is; nothing is done to the photos that draw "none".
CHOICES = (
    *("none", "rotation", "zoom", "shift_down", "shift_right"),
    *("brightness", "contrast", "saturation", "hue"),
)
_NEUTRAL = 0.5  # the middle of each range changes nothing


def chosen(draws: tf.Tensor, wanted: Augmentation) -> tuple[tf.Tensor, Augmentation]:
    """Returns draws and options by which the operations are TrivialAugment's, if that is wanted.

    Args:
        draws: `[batch, NUM_DRAWS]` float32.
        wanted: as asked for; crops, flips and erasing stay.

    Returns:
        Draws of which all but those of the photo's operation are in the middle of their range; and
        options with the ranges.
    """
    if not wanted.trivial_augment:
        return draws, wanted
    choice = tf.cast(Draws(draws).of("trivial") * len(CHOICES), tf.int32)
    table = tf.constant([_number(name) for name in NAMES])
    others = (table >= 0) & (table != choice[:, tf.newaxis])
    ranges = dataclasses.replace(wanted, trivial_augment=False, **TRIVIAL_RANGES)
    return tf.where(others, _NEUTRAL, draws), ranges


def _number(draw: str) -> int:
    """Which operation a draw belongs to; -1 for those of none."""
    return CHOICES.index(draw) if draw in CHOICES else -1
