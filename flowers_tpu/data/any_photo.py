"""Photos of any size and aspect, decoded to what a model sees: for those of no data set.

All in TensorFlow's operations, so that a saved model can have it in it.
"""

import dataclasses

import tensorflow as tf

from flowers_tpu.data.decode import Decoder
from flowers_tpu.data.orientation import orientation, upright

# As in convert/photo_pixels.py, which made the photos of a data set from such as these: a JPEG may
# be decoded at a half, quarter or eighth of its size if it stays so many times as large.
_DECODED_AT_LEAST = 2
_QUALITY = 95  # make_tfrecords.py's
_FACTORS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class AnyPhotoDecoder:
    """Makes of any JPEG first what the data set would hold of it, then what the model sees.

    A photo of just the size of the data set's is taken for one of them, and decoded as the pipeline
    does, to the last bit; an EXIF orientation is then not looked at, as it is not there.

    Attributes:
        own: decodes the photos of the data set.
    """

    own: Decoder

    def __call__(self, jpeg: tf.Tensor) -> tf.Tensor:
        """Returns `[own.side, own.side, 3]` uint8 of a string scalar."""
        side = self.own.photo_size
        is_own = tf.reduce_all(tf.io.extract_jpeg_shape(jpeg)[:2] == side)
        return self.own(tf.cond(is_own, lambda: jpeg, lambda: _converted(jpeg, side)))


def _converted(jpeg: tf.Tensor, side: int) -> tf.Tensor:
    """The JPEG that a data set would hold: a network learns what compression does, too."""
    return tf.io.encode_jpeg(upright_square(jpeg, side), quality=_QUALITY)


def upright_square(jpeg: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the largest square in the middle of a photo, upright, `[side, side, 3]` uint8.

    What `convert.photo_pixels.render` makes of it but for the rounding between the two directions,
    and but for a colour profile, which is not applied.

    Args:
        jpeg: string scalar, of any size.
        side: pixels.
    """
    shorter = tf.reduce_min(tf.io.extract_jpeg_shape(jpeg)[:2])
    times = shorter // (side * _DECODED_AT_LEAST)
    number = tf.reduce_sum(tf.cast(times >= tf.constant(_FACTORS[1:]), tf.int32))
    image = tf.switch_case(
        number,
        [lambda r=factor: tf.io.decode_jpeg(jpeg, channels=3, ratio=r) for factor in _FACTORS],
    )
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = side / tf.reduce_min(size)
    # Cut and resized at once, by the filter of Lanczos, which is Pillow's too.
    square = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[tf.newaxis],
        size=[side, side],
        scale=tf.stack([scale, scale]),
        translation=(side - size * scale) / 2,
        kernel_type="lanczos3",
        antialias=True,
    )
    square = tf.cast(tf.clip_by_value(square[0], 0, 255) + 0.5, tf.uint8)
    return upright(tf.ensure_shape(square, [side, side, 3]), orientation(jpeg))
