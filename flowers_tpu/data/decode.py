"""From JPEG bytes to pixels: whole, or at a fraction of the size where no more is wanted."""

import dataclasses
import math

import tensorflow as tf

_FACTORS = (1, 2, 4, 8)  # by which a JPEG decoder can reduce a photo


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Decodes the square photos of a split to one size.

    A JPEG is stored as the frequencies of blocks of 8 by 8 pixels. A reduced photo is decoded from
    the lower ones alone, which takes less time than decoding it whole and shrinking it.

    Attributes:
        photo_size: side of the photos, pixels.
        factor: 1, 2, 4 or 8: by how much they are reduced while they are decoded.
        side: of the result, pixels; what decoding leaves is resized to it where it is another.
    """

    photo_size: int
    factor: int
    side: int

    def __call__(self, jpeg: tf.Tensor) -> tf.Tensor:
        """Returns `[side, side, 3]` uint8."""
        image = tf.io.decode_jpeg(jpeg, channels=3, ratio=self.factor)
        if self.side != _reduced(self.photo_size, self.factor):
            image = tf.image.resize(image, [self.side, self.side], antialias=True)
            image = tf.cast(image + 0.5, tf.uint8)
        return tf.ensure_shape(image, [self.side, self.side, 3])


def for_training(
    photo_size: int, image_size: int, least_side: float, *, warps: bool = False
) -> Decoder:
    """Decodes what augmentation cuts from and resizes.

    Args:
        photo_size: side of the photos, pixels.
        image_size: side of what is made of them, pixels.
        least_side: least side of what is cut out, as a fraction of the photo's. Also this is never
            enlarged just because the photo was reduced.
        warps: whether photos are warped, which looks at four pixels for each new one and so would
            leave out most of a photo much larger than what is made of it: it is then shrunk, with
            antialiasing, to where the least side is just as large as that.
    """
    factor = _largest_factor(photo_size * least_side, image_size)
    side = _reduced(photo_size, factor)
    if warps:
        side = min(side, math.ceil(image_size / least_side))
    return Decoder(photo_size, factor, side)


def for_evaluation(photo_size: int, image_size: int) -> Decoder:
    """Decodes a photo to what the model sees."""
    return Decoder(photo_size, _largest_factor(photo_size, image_size), image_size)


def _largest_factor(side: float, wanted: int) -> int:
    return max(factor for factor in _FACTORS if factor == 1 or side / factor >= wanted)


def _reduced(photo_size: int, factor: int) -> int:
    """The side that a decoder gives a reduced photo."""
    return math.ceil(photo_size / factor)
