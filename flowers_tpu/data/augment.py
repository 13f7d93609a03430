"""Stateless augmentation: what is done to a photo is a function of a few numbers drawn for it.

`draws_from` gives these numbers from (seed, number of the example); everything else is a function
of (photo, its draws), so where and when a photo is augmented makes no difference. There are two
routes to the same images, within rounding: `on_host`, a photo at a time, with the kernels that are
fastest on a CPU; and `on_device`, a batch at a time, with static shapes, for XLA.

The order is: crop, flips, resize (or one affine warp of them all), brightness, contrast,
saturation, hue, erasing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.data import colour, geometry

# What is drawn for each example, uniform in [0, 1).
_DRAWS = (
    *("flip_left_right", "flip_up_down", "saturation", "crop_side", "crop_top", "crop_left"),
    *("brightness", "contrast", "hue", "rotation", "zoom", "shift_down", "shift_right"),
    *("erase", "erase_area", "erase_ratio", "erase_top", "erase_left"),
)
NUM_DRAWS = len(_DRAWS)

# Examples drawn for at once: a constant, since it decides what is drawn.
_BLOCK = 1024

# Random erasing as its authors have it: the rectangle's part of the area, and its sides' ratio.
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 1 / 0.3)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may happen to a training photo. The defaults are the notebook's four operations.

    Attributes:
        flip_left_right: mirror half of the photos.
        flip_up_down: turn half of the photos upside down.
        saturation: range of the factor of the colours' saturation; (1, 1) for none.
        crop_min: least side of the random square crop, as a fraction of the photo's; 1 for none.
        brightness: most that is added or taken away, as a fraction of full brightness.
        contrast: most that the factor of contrast differs from 1.
        hue: most that the hue is turned either way, as a fraction of the circle.
        rotation: most that a photo is turned either way, degrees.
        zoom: most that the factor of enlargement differs from 1.
        translation: most that a photo is shifted along each side, as a fraction of it.
        random_erasing: probability with which a rectangle is painted over.
    """

    flip_left_right: bool = True
    flip_up_down: bool = True
    saturation: tuple[float, float] = (0.0, 2.0)
    crop_min: float = 0.7
    brightness: float = 0.0
    contrast: float = 0.0
    hue: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    translation: float = 0.0
    random_erasing: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether a photo is turned, enlarged or shifted."""
        return bool(self.rotation or self.zoom or self.translation)

    @property
    def least_side(self) -> float:
        """Least side of what is cut out, as a fraction of the photo's."""
        return self.crop_min / (1 + self.zoom)


class Window(NamedTuple):
    """The squares to cut out of photos, in pixels; each `[batch]` float32, whole numbers."""

    top: tf.Tensor
    left: tf.Tensor
    side: tf.Tensor


def draws_from(seed: int, first: tf.Tensor) -> tf.data.Dataset:
    """Returns the draws of the `first` example of a run and all after it, `[NUM_DRAWS]` each."""
    blocks = tf.data.Dataset.range(first // _BLOCK, tf.int64.max)
    return blocks.flat_map(
        lambda block: tf.data.Dataset.from_tensor_slices(_draw_block(seed, block))
    ).skip(first % _BLOCK)


def draw(seed: int, number: int) -> tf.Tensor:
    """Returns the draws of the `number`-th example of a run, `[NUM_DRAWS]` float32 in [0, 1)."""
    return _draw_block(seed, tf.constant(number // _BLOCK, tf.int64))[number % _BLOCK]


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
    if augmentation.warps:
        images = _warp(images, draws, image_size, augmentation)
    else:
        size = images.shape[1]
        window = crop_window(draws, size, augmentation)
        upside_down, mirrored = _flips(draws, augmentation)
        matrix = functools.partial(geometry.resize_matrix, source=size, size=image_size)
        rows = matrix(window.top, window.side, upside_down)
        columns = matrix(window.left, window.side, mirrored)
        images = geometry.crop_and_resize(images, rows, columns)
    return _finish(images, draws, augmentation)


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
    warp, finish = _compiled(image_size, augmentation)
    if augmentation.warps:
        return finish(warp(image[tf.newaxis], draws), draws)[0]
    if augmentation.crop_min < 1:
        window = crop_window(draws, size, augmentation)
        top, left, side = (tf.cast(value[0], tf.int32) for value in window)
        image = image[top : top + side, left : left + side]
    upside_down, mirrored = _flips(draws, augmentation)
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


def crop_window(draws: tf.Tensor, size: int, augmentation: Augmentation) -> Window:
    """Returns the squares to cut out of photos of `size` pixels, by draws `[batch, NUM_DRAWS]`."""
    fraction = _between(draws, "crop_side", augmentation.crop_min, 1.0)
    side = tf.maximum(tf.round(size * fraction), 1.0)
    room = size - side + 1  # places for the corner along one side
    top, left = (tf.floor(_of(draws, name) * room) for name in ("crop_top", "crop_left"))
    return Window(top, left, side)


@functools.cache
def _compiled(image_size: int, augmentation: Augmentation) -> tuple[Callable, Callable]:
    """`_warp` and `_finish`, each one compiled pass; once in a process, as compiling takes time."""

    def warp(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return _warp(images, draws, image_size, augmentation)

    def finish(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return _finish(images, draws, augmentation)

    return tf.function(warp, jit_compile=True), tf.function(finish, jit_compile=True)


def _warp(
    images: tf.Tensor, draws: tf.Tensor, image_size: int, augmentation: Augmentation
) -> tf.Tensor:
    window = crop_window(draws, images.shape[1], augmentation)
    most = {name: getattr(augmentation, name) for name in ("rotation", "zoom", "translation")}
    turn = _between(draws, "rotation", -most["rotation"], most["rotation"])
    maps = geometry.affine(
        centre=tf.stack([window.top, window.left], axis=1) + window.side[:, tf.newaxis] / 2,
        side=window.side,
        flip=tf.stack(_flips(draws, augmentation), axis=1),
        radians=turn * (math.pi / 180),
        zoom=_between(draws, "zoom", 1 - most["zoom"], 1 + most["zoom"]),
        shift=tf.stack(
            [
                _between(draws, name, -most["translation"], most["translation"])
                for name in ("shift_down", "shift_right")
            ],
            axis=1,
        ),
    )
    return geometry.warp(images, maps, image_size)


def _finish(images: tf.Tensor, draws: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """What is done to a photo that has its place and size: colours, erasing, rounding."""
    images = tf.cast(images, tf.float32)
    if most := augmentation.brightness:
        images = colour.brighten(images, _between(draws, "brightness", -most, most))
    if most := augmentation.contrast:
        images = colour.contrast(images, _between(draws, "contrast", 1 - most, 1 + most))
    if augmentation.saturation != (1.0, 1.0):
        images = colour.saturate(images, _between(draws, "saturation", *augmentation.saturation))
    if most := augmentation.hue:
        images = colour.turn_hue(images, _between(draws, "hue", -most, most))
    if probability := augmentation.random_erasing:
        images = colour.erase(images, **_rectangle(draws, images.shape[1], probability))
    return colour.to_uint8(images)


def _rectangle(draws: tf.Tensor, size: int, probability: float) -> dict[str, tf.Tensor]:
    """What to erase; a rectangle without height where nothing is."""
    area = _between(draws, "erase_area", *_ERASE_AREA)
    ratio = tf.exp(_between(draws, "erase_ratio", *(math.log(r) for r in _ERASE_RATIO)))
    height = tf.minimum(tf.sqrt(area * ratio), 1.0) * size
    width = tf.minimum(tf.sqrt(area / ratio), 1.0) * size
    return {
        "top": _of(draws, "erase_top") * (size - height),
        "left": _of(draws, "erase_left") * (size - width),
        "height": tf.where(_of(draws, "erase") < probability, height, 0.0),
        "width": width,
    }


def _flips(draws: tf.Tensor, augmentation: Augmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether to turn upside down and to mirror, each `[batch]` bool."""
    upside_down = (_of(draws, "flip_up_down") < 0.5) & augmentation.flip_up_down
    return upside_down, (_of(draws, "flip_left_right") < 0.5) & augmentation.flip_left_right


def _reversed_if(condition: tf.Tensor, image: tf.Tensor, axis: int) -> tf.Tensor:
    # `tf.reverse` is ten times as fast as a slice with a step of -1.
    return tf.cond(condition, lambda: tf.reverse(image, [axis]), lambda: image)


def _draw_block(seed: int, block: tf.Tensor) -> tf.Tensor:
    seeds = tf.stack([tf.cast(seed, tf.int64), block])
    return tf.random.stateless_uniform([_BLOCK, NUM_DRAWS], seeds, alg="philox")


def _of(draws: tf.Tensor, name: str) -> tf.Tensor:
    """A draw of each example, `[batch]`."""
    return draws[:, _DRAWS.index(name)]


def _between(draws: tf.Tensor, name: str, lower: float, upper: float) -> tf.Tensor:
    """A draw of each example, uniform between two numbers, `[batch]`."""
    return lower + _of(draws, name) * (upper - lower)
