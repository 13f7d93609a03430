"""Stateless augmentation: what is done to a photo is a function of a few numbers drawn for it.

`draw` gives these numbers from (seed, number of the example); everything else is a function of
(photo, draws), so where and when a photo is augmented makes no difference.
"""

import dataclasses

import tensorflow as tf

# The places of an example's draws, each uniform in [0, 1).
FLIP_LEFT_RIGHT, FLIP_UP_DOWN, SATURATION, CROP_SIDE, CROP_TOP, CROP_LEFT = range(6)
NUM_DRAWS = 6


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may happen to a training photo. The defaults are the notebook's four operations.

    Attributes:
        flip_left_right: mirror half of the photos.
        flip_up_down: turn half of the photos upside down.
        saturation: range of the factor of the colours' saturation; (1, 1) for none.
        crop_min: least side of the random square crop, as a fraction of the photo's; 1 for none.
    """

    flip_left_right: bool = True
    flip_up_down: bool = True
    saturation: tuple[float, float] = (0.0, 2.0)
    crop_min: float = 0.7


def draw(seed: int, number: tf.Tensor) -> tf.Tensor:
    """Returns the draws of the `number`-th example of a run, `[NUM_DRAWS]` float32."""
    return tf.random.stateless_uniform([NUM_DRAWS], tf.stack([tf.cast(seed, tf.int64), number]))


def crop_window(draws: tf.Tensor, image_size: int, augmentation: Augmentation) -> tf.Tensor:
    """Returns the square to cut from a photo: (top, left, height, width) in pixels, `[4]` int32."""
    size = tf.cast(image_size, tf.float32)
    fraction = augmentation.crop_min + draws[CROP_SIDE] * (1 - augmentation.crop_min)
    side = tf.maximum(tf.cast(tf.round(size * fraction), tf.int32), 1)
    room = tf.cast(image_size - side + 1, tf.float32)  # places for the corner along one side
    top = tf.cast(draws[CROP_TOP] * room, tf.int32)
    left = tf.cast(draws[CROP_LEFT] * room, tf.int32)
    return tf.stack([top, left, side, side])


def augment(
    crop: tf.Tensor, draws: tf.Tensor, image_size: int, augmentation: Augmentation
) -> tf.Tensor:
    """Flips, resizes and colours a photo that was cut to its `crop_window`.

    Args:
        crop: `[side, side, 3]` uint8.
        draws: `[NUM_DRAWS]` float32 in [0, 1).
        image_size: side of the result, pixels.
        augmentation: what may happen.

    Returns:
        `[image_size, image_size, 3]` uint8.
    """
    image = crop
    # Flips commute with a resize to a square, and cost least on bytes.
    if augmentation.flip_left_right:
        image = tf.cond(draws[FLIP_LEFT_RIGHT] < 0.5, lambda: image[:, ::-1], lambda: image)
    if augmentation.flip_up_down:
        upright = image
        image = tf.cond(draws[FLIP_UP_DOWN] < 0.5, lambda: upright[::-1], lambda: upright)
    if augmentation.crop_min < 1:
        image = tf.image.resize(image, [image_size, image_size])
    lower, upper = augmentation.saturation
    if (lower, upper) != (1.0, 1.0):
        factor = lower + draws[SATURATION] * (upper - lower)
        image = saturate(tf.cast(image, tf.float32), factor)
    if image.dtype != tf.uint8:
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.ensure_shape(image, [image_size, image_size, 3])


def saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation of the HSV colour model by `factor`, clipped to 1.

    Equals `tf.image.adjust_saturation`, without going through hue and back: with v and m the
    largest and smallest channel, saturation is (v - m) / v, and scaling it at constant hue and
    value moves each channel x to v - (v - x) * min(factor, v / (v - m)).

    Args:
        image: `[..., 3]` float32.
        factor: scalar float32, not negative.
    """
    value = tf.reduce_max(image, axis=-1, keepdims=True)
    least = tf.reduce_min(image, axis=-1, keepdims=True)
    limit = value / tf.maximum(value - least, 1e-6)  # grey pixels have no limit and no effect
    return value - (value - image) * tf.minimum(factor, limit)
