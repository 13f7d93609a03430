"""How a camera was held, read from a JPEG's bytes by TensorFlow's operations.

So a model that is saved with its decoder turns photos upright wherever it runs. What is read is the
EXIF tag Orientation (CIPA DC-008, 4.6.5) in the TIFF header (Adobe, TIFF 6.0, section 2) of the
segment APP1 (ITU-T T.81, annex B).
"""

import tensorflow as tf

_HEAD = 1 << 18  # bytes in which the tag is looked for; a segment has at most 65,535
_MOST_TAGS = 512
_TAG = 0x0112
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9


def orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG, an int32 scalar from 1 (upright) to 8.

    1 also where there is none, or what there is cannot be read.

    Args:
        jpeg: string scalar.
    """
    head = tf.io.decode_raw(tf.strings.substr(jpeg, 0, _HEAD), tf.uint8)
    # What lies beyond reads as zeros.
    head = tf.concat([tf.cast(head, tf.int32), tf.zeros([16], tf.int32)], 0)
    last = tf.size(head) - 1

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.gather(head, tf.clip_by_value(position, 0, last))

    def number(position: tf.Tensor, places: int, little_endian: tf.Tensor | bool) -> tf.Tensor:
        result = 0
        for place in range(places):
            weight = tf.where(little_endian, place, places - 1 - place)
            result += tf.bitwise.left_shift(byte(position + place), 8 * weight)
        return result

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        found = [byte(position + 1) == _APP1]
        found += [byte(position + 4 + n) == value for n, value in enumerate(b"Exif\0\0")]
        return tf.reduce_all(tf.stack(found))

    def goes_on(position: tf.Tensor) -> tf.Tensor:
        marker = byte(position + 1)
        is_segment = (byte(position) == 0xFF) & (marker != _SCAN) & (marker != _END)
        return (position < last) & is_segment & ~is_exif(position)

    def following(position: tf.Tensor) -> tf.Tensor:
        fills = byte(position + 1) == 0xFF  # a marker may be preceded by any number of these
        return position + tf.where(fills, 1, 2 + number(position + 2, 2, False))

    (segment,) = tf.while_loop(goes_on, lambda position: [following(position)], [tf.constant(2)])
    tiff = segment + 10
    little = byte(tiff) == ord("I")
    table = tiff + number(tiff + 4, 4, little)
    tags = table + 2 + 12 * tf.range(tf.minimum(number(table, 2, little), _MOST_TAGS))
    matching = tf.boolean_mask(tags, number(tags, 2, little) == _TAG)
    # Some of the file may look like it where there is no such segment.
    values = tf.concat([number(matching + 8, 2, little), [1]], 0)
    value = tf.where(is_exif(segment), values[0], 1)
    return tf.where((value >= 1) & (value <= 8), value, 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors a square image so that it is upright.

    Args:
        image: `[side, side, channels]`.
        orientation: int32 scalar, see `orientation`.
    """

    def among(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(orientations))

    image = tf.where(among(5, 6, 7, 8), tf.transpose(image, [1, 0, 2]), image)
    image = tf.where(among(2, 3, 6, 7), tf.reverse(image, [1]), image)
    return tf.where(among(3, 4, 7, 8), tf.reverse(image, [0]), image)
