"""Mixing photos in pairs: MixUp and CutMix, each photo with its neighbour in the global batch.

The partner of the photo at place p is that at p ^ 1: random, as the order is, and always in the
same replica's part, so that the number of replicas makes no difference. Both photos of a pair are
mixed in the same way, by the draws of the even one.
"""

import functools

import numpy as np
import tensorflow as tf

from flowers_tpu.data.augment import colour
from flowers_tpu.data.augment.draws import Draws
from flowers_tpu.data.augment.options import Augmentation

_POINTS = 1024  # of the table by which shares are drawn


def mixed(batch: dict[str, tf.Tensor], wanted: Augmentation) -> dict[str, tf.Tensor]:
    """Mixes every photo of a batch with its partner.

    A pair of which one only fills the batch up stays as it is.

    Args:
        batch: `image` `[b, size, size, 3]` uint8, `label` `[b]` int32, `weight` `[b]` float32 and
            `draws` `[b, NUM_DRAWS]` float32; b is even.
        wanted: MixUp (Zhang et al., 2018, arXiv:1710.09412), CutMix (Yun et al., 2019,
            arXiv:1905.04899), or one of the two for each pair.

    Returns:
        The batch with mixed images; `label` is that of the photo with the larger share, `other`
        `[b]` int32 that of the photo with the smaller, and `share` `[b]` float32 in [0.5, 1] the
        larger share.
    """
    draws = Draws(tf.repeat(batch["draws"][::2], 2, axis=0))
    whole = tf.minimum(batch["weight"], _partners(batch["weight"])) <= 0
    whole |= draws.of("mix") >= wanted.mix_probability
    own, share = _own_part(draws, batch["image"].shape[1], wanted)
    own = tf.where(whole[:, tf.newaxis, tf.newaxis, tf.newaxis], 1.0, own)
    share = tf.where(whole, 1.0, share)
    images = tf.cast(batch["image"], tf.float32)
    images = own * images + (1 - own) * _partners(images)
    is_larger, partner = share >= 0.5, _partners(batch["label"])
    return {
        **batch,
        "image": colour.to_uint8(images),
        "label": tf.where(is_larger, batch["label"], partner),
        "other": tf.where(is_larger, partner, batch["label"]),
        "share": tf.maximum(share, 1 - share),
    }


def _own_part(draws: Draws, size: int, wanted: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """How much of a photo stays its own: of each pixel, `[b, …, …, 1]`, and in all, `[b]`."""
    ways = []
    if wanted.mixup:
        share = _beta(draws.of("mix_share"), wanted.mixup)
        ways.append((share[:, tf.newaxis, tf.newaxis, tf.newaxis], share))
    if wanted.cutmix:
        # The rectangle is the partner's; as in the paper it is cut off at the photo's edges.
        half = tf.sqrt(1 - _beta(draws.of("mix_share"), wanted.cutmix)) * size / 2
        rows = _within(draws.of("mix_top") * size, half, size)
        columns = _within(draws.of("mix_left") * size, half, size)
        area = tf.reduce_sum(rows, axis=1) * tf.reduce_sum(columns, axis=1)
        pixels = 1 - rows[:, :, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis, :, tf.newaxis]
        ways.append((pixels, 1 - area / size**2))
    if len(ways) == 1:
        return ways[0]
    of_mixup, of_cutmix = ways
    cuts = draws.of("mix_kind") < 0.5
    pixels = tf.where(cuts[:, tf.newaxis, tf.newaxis, tf.newaxis], of_cutmix[0], of_mixup[0])
    return pixels, tf.where(cuts, of_cutmix[1], of_mixup[1])


def _within(centre: tf.Tensor, half: tf.Tensor, size: int) -> tf.Tensor:
    """Which pixels of a side are so near to its point, `[b, size]` float32 of 0 and 1."""
    first, end = tf.round(centre - half), tf.round(centre + half)
    places = tf.range(size, dtype=tf.float32)
    within = (places >= first[:, tf.newaxis]) & (places < end[:, tf.newaxis])
    return tf.cast(within, tf.float32)


def _beta(drawn: tf.Tensor, alpha: float) -> tf.Tensor:
    """Turns uniform numbers into ones of the distribution Beta(alpha, alpha), by its quantiles."""
    place = drawn * _POINTS
    before = tf.cast(place, tf.int32)
    table = tf.constant(_quantiles(alpha))
    low, high = tf.gather(table, before), tf.gather(table, before + 1)
    return low + (high - low) * (place - tf.cast(before, tf.float32))


@functools.cache
def _quantiles(alpha: float) -> np.ndarray:
    from scipy.stats import beta  # late: it takes half a second to import, and little needs it

    return beta.ppf(np.linspace(0, 1, _POINTS + 1), alpha, alpha).astype(np.float32)


def _partners(values: tf.Tensor) -> tf.Tensor:
    """Exchanges the values of each pair."""
    return tf.reshape(
        tf.reverse(tf.reshape(values, [-1, 2, *values.shape[1:]]), axis=[1]), tf.shape(values)
    )
