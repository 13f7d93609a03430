"""Stateless augmentation: what is done to a photo is a function of a few numbers drawn for it.

There are two routes to the same images, within rounding: `on_host`, a photo at a time, with the
kernels that are fastest on a CPU; and `on_device`, a batch at a time, with static shapes, for XLA.

The order is: crop, flips, resize (or one affine warp of them all), then `operations`.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.data.augment import geometry, operations, trivial
from flowers_tpu.data.augment.draws import NUM_DRAWS, Draws
from flowers_tpu.data.augment.options import Augmentation


class Window(NamedTuple):
    """The squares to cut out of photos, in pixels; each `[batch]` float32, whole numbers."""

    top: tf.Tensor
    left: tf.Tensor
    side: tf.Tensor


def on_device(
    images: tf.Tensor, draws: tf.Tensor, *, image_size: int, augmentation: Augmentation
) -> tf.Tensor:
    """Augments a batch with static shapes and operations that XLA compiles for any device.

    Args:
        images: `[batch, size, size, 3]` uint8.
        draws: `[batch, NUM_DRAWS]` float32 in [0, 1).
        image_size: side of the result, pixels.
        augmentation: what may happen.

    Returns:
        `[batch, image_size, image_size, 3]` uint8.
    """
    draws, augmentation = trivial.chosen(draws, augmentation)
    if augmentation.warps:
        images = _warp(images, Draws(draws), image_size, augmentation)
    else:
        size = images.shape[1]
        window = crop_window(Draws(draws), size, augmentation)
        upside_down, mirrored = _flips(Draws(draws), augmentation)
        matrix = functools.partial(geometry.resize_matrix, source=size, size=image_size)
        rows = matrix(window.top, window.side, upside_down)
        columns = matrix(window.left, window.side, mirrored)
        images = geometry.crop_and_resize(images, rows, columns)
    return operations.finish(images, augmentation, Draws(draws))


def on_host(
    image: tf.Tensor, draws: tf.Tensor, *, image_size: int, augmentation: Augmentation
) -> tf.Tensor:
    """Augments one photo by the cheapest route on a CPU.

    Cutting and flipping are copies of bytes, `tf.image.resize` is a kernel of its own, and all that
    is done to colours is one pass that XLA compiles: as separate operations it costs more than
    everything else together.

    Args:
        image: `[size, size, 3]` uint8.
        draws: `[NUM_DRAWS]` float32 in [0, 1).
        image_size: side of the result, pixels.
        augmentation: what may happen.

    Returns:
        `[image_size, image_size, 3]` uint8.
    """
    size, draws = image.shape[0], draws[tf.newaxis]
    draws, augmentation = trivial.chosen(draws, augmentation)
    warp, finish = _compiled(image_size, augmentation)
    if augmentation.warps:
        return finish(warp(image[tf.newaxis], draws), draws)[0]
    if augmentation.crop_min < 1:
        window = crop_window(Draws(draws), size, augmentation)
        top, left, side = (tf.cast(value[0], tf.int32) for value in window)
        image = image[top : top + side, left : left + side]
    upside_down, mirrored = _flips(Draws(draws), augmentation)
    if augmentation.flip_up_down:
        image = _reversed_if(upside_down[0], image, axis=0)
    if augmentation.flip_left_right:
        image = _reversed_if(mirrored[0], image, axis=1)
    if augmentation.crop_min < 1 or size != image_size:
        # Of floats, as of bytes it takes half as long again. Antialiasing makes a difference, and
        # a slower kernel, only where a photo may shrink.
        image = tf.cast(image, tf.float32)
        image = tf.image.resize(image, [image_size] * 2, antialias=size > image_size)
    return finish(tf.ensure_shape(image, [image_size, image_size, 3])[tf.newaxis], draws)[0]


def compile_for_host(size: int, *, image_size: int, augmentation: Augmentation) -> None:
    """Compiles what `on_host` compiles for photos of `size` pixels now, not at the first photo."""
    with tf.device("CPU:0"):  # where the input runs; by itself this would run on a GPU
        photo = tf.zeros([size, size, 3], tf.uint8)
        draws = tf.zeros([NUM_DRAWS])
        on_host(photo, draws, image_size=image_size, augmentation=augmentation)


def crop_window(draws: Draws, size: int, augmentation: Augmentation) -> Window:
    """Returns the squares to cut out of photos of `size` pixels, by their draws."""
    fraction = draws.between("crop_side", augmentation.crop_min, 1.0)
    side = tf.maximum(tf.round(size * fraction), 1.0)
    room = size - side + 1  # places for the corner along one side
    top, left = (tf.floor(draws.of(name) * room) for name in ("crop_top", "crop_left"))
    return Window(top, left, side)


@functools.cache
def _compiled(image_size: int, augmentation: Augmentation) -> tuple[Callable, Callable]:
    """`_warp` and `operations.finish`, each one compiled pass; made once, as that takes time."""

    def warp(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return _warp(images, Draws(draws), image_size, augmentation)

    def finish(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return operations.finish(images, augmentation, Draws(draws))

    return tf.function(warp, jit_compile=True), tf.function(finish, jit_compile=True)


def _warp(
    images: tf.Tensor, draws: Draws, image_size: int, augmentation: Augmentation
) -> tf.Tensor:
    window = crop_window(draws, images.shape[1], augmentation)
    most = {name: getattr(augmentation, name) for name in ("rotation", "zoom", "translation")}
    turn = draws.between("rotation", -most["rotation"], most["rotation"])
    maps = geometry.affine(
        centre=tf.stack([window.top, window.left], axis=1) + window.side[:, tf.newaxis] / 2,
        side=window.side,
        flip=tf.stack(_flips(draws, augmentation), axis=1),
        radians=turn * (math.pi / 180),
        zoom=draws.between("zoom", 1 - most["zoom"], 1 + most["zoom"]),
        shift=tf.stack(
            [
                draws.between(name, -most["translation"], most["translation"])
                for name in ("shift_down", "shift_right")
            ],
            axis=1,
        ),
    )
    return geometry.warp(images, maps, image_size)


def _flips(draws: Draws, augmentation: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether to turn upside down and to mirror, each `[batch]` bool."""
    upside_down = (draws.of("flip_up_down") < 0.5) & augmentation.flip_up_down
    return upside_down, (draws.of("flip_left_right") < 0.5) & augmentation.flip_left_right


def _reversed_if(condition: tf.Tensor, image: tf.Tensor, axis: int) -> tf.Tensor:
    # `tf.reverse` is ten times as fast as a slice with a step of -1.
    return tf.cond(condition, lambda: tf.reverse(image, [axis]), lambda: image)
