"""What augmentation does to colours, and random erasing.

Images are `[batch, height, width, 3]` float32 in [0, 255]; parameters have one value per image,
`[batch]` float32. Channels are taken apart rather than reduced over: TensorFlow's reductions of an
axis of 3 are many times slower, and XLA fuses all of this into one pass.
"""

import tensorflow as tf

# ImageNet's mean colour, with which erased rectangles are painted.
MEAN_COLOUR = (124.0, 116.0, 104.0)


def brighten(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds `delta`, a fraction of full brightness; as `tf.image.adjust_brightness`."""
    return _in_range(images + 255.0 * _per_pixel(delta))


def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales each channel's distance from its mean; as `tf.image.adjust_contrast`."""
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    return _in_range(mean + (images - mean) * _per_pixel(factor))


def saturate(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation of the HSV colour model by `factor`, clipped to 1.

    Equals `tf.image.adjust_saturation`, without going through hue and back: with v and m the
    largest and smallest channel, saturation is (v - m) / v, and scaling it at constant hue and
    value moves each channel x to v - (v - x) * min(factor, v / (v - m)).
    """
    value, least = _extremes(*_channels(images))
    limit = value / tf.maximum(value - least, 1e-6)  # grey pixels have no limit and no effect
    return value - (value - images) * tf.minimum(_per_pixel(factor), limit)


def turn_hue(images: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turns the hue of the HSV colour model by a fraction of the circle; as `tf.image.adjust_hue`.

    The way back from HSV is x = v - (v - m) * max(0, min(k, 4 - k, 1)) with k = (n + 6 * hue) mod 6
    and n = 5, 3, 1 for red, green and blue (Wikipedia, "HSL and HSV", alternative formula).
    """
    red, green, blue = _channels(images)
    value, least = _extremes(red, green, blue)
    chroma = value - least
    divisor = tf.maximum(chroma, 1e-6)
    hue = tf.where(
        value == red,
        (green - blue) / divisor,
        tf.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue += 6 * _per_pixel(turn)
    places = (tf.math.floormod(n + hue, 6.0) for n in (5, 3, 1))
    parts = [tf.clip_by_value(tf.minimum(k, 4 - k), 0.0, 1.0) for k in places]
    return value - chroma * tf.concat(parts, axis=-1)


def erase(
    images: tf.Tensor, *, top: tf.Tensor, left: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Paints a rectangle, in pixels, with the mean colour; one without height erases nothing.

    Random erasing: Zhong et al., 2017, https://arxiv.org/abs/1708.04896.
    """
    rows = _within(top, height, images.shape[1])[:, :, tf.newaxis, tf.newaxis]
    columns = _within(left, width, images.shape[2])[:, tf.newaxis, :, tf.newaxis]
    return tf.where(rows & columns, tf.constant(MEAN_COLOUR), images)


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Rounds to whole numbers; halves upwards."""
    return tf.cast(_in_range(images) + 0.5, tf.uint8)


def _in_range(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 255.0)


def _per_pixel(values: tf.Tensor) -> tf.Tensor:
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _channels(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return images[..., 0:1], images[..., 1:2], images[..., 2:3]


def _extremes(red: tf.Tensor, green: tf.Tensor, blue: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest and the smallest channel of each pixel."""
    largest = tf.maximum(tf.maximum(red, green), blue)
    return largest, tf.minimum(tf.minimum(red, green), blue)


def _within(start: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """Which of `size` pixels have their centre in a stretch, `[batch, size]` bool."""
    centre = tf.range(size, dtype=tf.float32)[tf.newaxis, :] + 0.5
    return (centre >= start[:, tf.newaxis]) & (centre < (start + length)[:, tf.newaxis])
