"""What is done to a photo that has its place and size, an operation each, in this order.

To add one: a field of `Augmentation`, and a function here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.data.augment import colour
from flowers_tpu.data.augment.columns import Columns
from flowers_tpu.data.augment.options import Augmentation


class Operation(NamedTuple):
    """What may be done to photos.

    Attributes:
        apply: of images `[batch, size, size, 3]` float32 in [0, 255], what is wanted, and the
            draws: the images.
        draws: names of the draws that it takes.
    """

    apply: Callable[[tf.Tensor, Augmentation, Columns], tf.Tensor]
    draws: tuple[str, ...]


OPERATIONS: list[Operation] = []


def _operation(*draws: str) -> Callable[[Callable], Callable]:
    """Makes a function the next of the operations; it takes these draws."""

    def add(function: Callable) -> Callable:
        OPERATIONS.append(Operation(function, draws))
        return function

    return add


# Random erasing as its authors have it: the rectangle's part of the area, and its sides' ratio.
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 1 / 0.3)


@_operation("brightness")
def brightness(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Adds or takes away brightness."""
    most = wanted.brightness
    if not most:
        return images
    return colour.brighten(images, draws.between("brightness", -most, most))


@_operation("contrast")
def contrast(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Scales the distance of the pixels from their mean."""
    most = wanted.contrast
    if not most:
        return images
    return colour.contrast(images, draws.between("contrast", 1 - most, 1 + most))


@_operation("saturation")
def saturation(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Scales the colours' saturation."""
    lower, upper = wanted.saturation_lower, wanted.saturation_upper
    if lower == upper == 1:
        return images
    return colour.saturate(images, draws.between("saturation", lower, upper))


@_operation("hue")
def hue(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Turns the colours' hue."""
    most = wanted.hue
    if not most:
        return images
    return colour.turn_hue(images, draws.between("hue", -most, most))


@_operation("erase", "erase_area", "erase_ratio", "erase_top", "erase_left")
def erasing(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Paints a rectangle over; one without height where nothing is to be erased."""
    if not wanted.random_erasing:
        return images
    size = images.shape[1]
    area = draws.between("erase_area", *_ERASE_AREA)
    ratio = tf.exp(draws.between("erase_ratio", *(math.log(r) for r in _ERASE_RATIO)))
    height = tf.minimum(tf.sqrt(area * ratio), 1.0) * size
    width = tf.minimum(tf.sqrt(area / ratio), 1.0) * size
    return colour.erase(
        images,
        top=draws.of("erase_top") * (size - height),
        left=draws.of("erase_left") * (size - width),
        height=tf.where(draws.of("erase") < wanted.random_erasing, height, 0.0),
        width=width,
    )


def finish(images: tf.Tensor, wanted: Augmentation, draws: Columns) -> tf.Tensor:
    """Applies the operations to images `[batch, size, size, 3]` and rounds them to uint8."""
    images = tf.cast(images, tf.float32)
    for operation in OPERATIONS:
        images = operation.apply(images, wanted, draws)
    return colour.to_uint8(images)
