"""A drawn photo, and its JPEG.

Processes that draw import this and nothing of TensorFlow: they start in a moment.
"""

import io
import multiprocessing
import os
import threading
from typing import NamedTuple

import numpy as np
from PIL import Image

from flowers_tpu.data.classes import FLOWERS
from flowers_tpu.example_data.drawing import draw_photo
from flowers_tpu.example_data.species import SPECIES

_JPEG_QUALITY = 90


class Photo(NamedTuple):
    """What a photo is a function of."""

    seed: int
    split: int
    label: int
    number: int
    image_size: int


def draw_jpeg(photo: Photo) -> bytes:
    """Draws a photo; returns its JPEG."""
    rng = np.random.default_rng([photo.seed, photo.split, photo.label, photo.number])
    pixels = draw_photo(SPECIES[FLOWERS[photo.label]], photo.image_size, rng)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def end_with_parent() -> None:
    """Ends this process when its parent is killed, which a pool's processes do not notice."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
