"""Where the pixels of an augmented photo come from: crop, flips, resize; or one affine warp.

Everything takes a batch and its parameters as tensors, has static shapes and compiles with XLA.
"""

import tensorflow as tf


def resize_matrix(
    start: tf.Tensor, length: tf.Tensor, flip: tf.Tensor, *, source: int, size: int
) -> tf.Tensor:
    """Returns the matrices that cut stretches out of lines of pixels and resize them.

    Bilinear with half-pixel centres, and with antialiasing where a stretch shrinks: a triangle
    kernel as wide as a new pixel, as in `tf.image.resize(antialias=True)`. Pixels outside the
    stretch have no part in it.

    Args:
        start: `[batch]` float32, first pixel of each stretch.
        length: `[batch]` float32, pixels of each stretch.
        flip: `[batch]` bool, whether to reverse it.
        source: pixels of a line.
        size: pixels of a resized stretch.

    Returns:
        `[batch, size, source]` float32; each row sums to 1.
    """
    scale = (length / size)[:, tf.newaxis, tf.newaxis]
    new = tf.range(size, dtype=tf.float32)[tf.newaxis, :]
    new = tf.where(flip[:, tf.newaxis], size - 1 - new, new)[:, :, tf.newaxis]
    old = tf.range(source, dtype=tf.float32)[tf.newaxis, tf.newaxis, :]
    start, length = start[:, tf.newaxis, tf.newaxis], length[:, tf.newaxis, tf.newaxis]
    centre = start + (new + 0.5) * scale - 0.5
    weight = tf.maximum(1 - tf.abs(old - centre) / tf.maximum(scale, 1.0), 0.0)
    weight = tf.where((old >= start) & (old < start + length), weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=-1, keepdims=True)


def crop_and_resize(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Cuts, flips and resizes by two matrix products, one along each side.

    Args:
        images: `[batch, height, width, 3]` uint8 or float32.
        rows: `[batch, size, height]` float32; see `resize_matrix`.
        columns: `[batch, size, width]` float32.

    Returns:
        `[batch, size, size, 3]` float32.
    """
    images = tf.cast(images, tf.float32)
    images = tf.einsum("bij,bjkc->bikc", rows, images)
    return tf.einsum("blk,bikc->bilc", columns, images)


def affine(
    *,
    centre: tf.Tensor,
    side: tf.Tensor,
    flip: tf.Tensor,
    radians: tf.Tensor,
    zoom: tf.Tensor,
    shift: tf.Tensor,
) -> tf.Tensor:
    """Returns the maps from places in the new image to places in the photo, `[batch, 2, 3]`.

    Places in the new image are (y, x) in [-0.5, 0.5]; those in the photo are in pixels. The new
    image is flipped, turned, enlarged and shifted within the square that is cut out.

    Args:
        centre: `[batch, 2]`, of the square, pixels.
        side: `[batch]`, of the square, pixels.
        flip: `[batch, 2]` bool: upside down, left to right.
        radians: `[batch]`, anticlockwise.
        zoom: `[batch]`, factor by which things get larger.
        shift: `[batch, 2]`, fractions of the side by which things move down and right.
    """
    cos, sin = tf.cos(radians), tf.sin(radians)
    turn = tf.stack([tf.stack([cos, sin], -1), tf.stack([-sin, cos], -1)], axis=1)
    scale = side / zoom
    mirror = tf.where(flip, -1.0, 1.0)
    linear = mirror[:, :, tf.newaxis] * turn * scale[:, tf.newaxis, tf.newaxis]
    offset = centre - tf.linalg.matvec(linear, shift)
    return tf.concat([linear, offset[:, :, tf.newaxis]], axis=-1)


def warp(images: tf.Tensor, maps: tf.Tensor, size: int) -> tf.Tensor:
    """Samples images bilinearly at affinely mapped places; beyond an edge they are mirrored.

    Args:
        images: `[batch, height, width, 3]` uint8 or float32.
        maps: `[batch, 2, 3]` float32; see `affine`.
        size: side of the result, pixels.

    Returns:
        `[batch, size, size, 3]` float32.
    """
    place = (tf.range(size, dtype=tf.float32) + 0.5) / size - 0.5
    y, x = place[:, tf.newaxis], place[tf.newaxis, :]
    maps = maps[:, :, :, tf.newaxis, tf.newaxis]
    height, width = images.shape[1:3]
    rows = _reflected(maps[:, 0, 0] * y + maps[:, 0, 1] * x + maps[:, 0, 2] - 0.5, height)
    columns = _reflected(maps[:, 1, 0] * y + maps[:, 1, 1] * x + maps[:, 1, 2] - 0.5, width)
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = (rows - top)[..., tf.newaxis], (columns - left)[..., tf.newaxis]
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    flat = tf.reshape(images, [-1, height * width, 3])

    def pixels(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        inside = tf.minimum(row, height - 1) * width + tf.minimum(column, width - 1)
        return tf.cast(tf.gather(flat, inside, batch_dims=1), tf.float32)

    upper = pixels(top, left) * (1 - right) + pixels(top, left + 1) * right
    lower = pixels(top + 1, left) * (1 - right) + pixels(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _reflected(places: tf.Tensor, length: int) -> tf.Tensor:
    """Mirrors places beyond the edges, `c b a | a b c | c b a`, and keeps them on pixels."""
    folded = tf.math.floormod(places + 0.5, 2.0 * length)
    folded = tf.minimum(folded, 2.0 * length - folded) - 0.5
    return tf.clip_by_value(folded, 0.0, length - 1.0)
