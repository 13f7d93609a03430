"""The way of the Kaggle notebook that this project began with: what it is measured against.

"Getting started with 100+ flowers on TPU", with its augmentation: every photo becomes floats right
after decoding, and what is shuffled are augmented photos, `SHUFFLE` of them at a time.
"""

from collections.abc import Sequence

import tensorflow as tf

from flowers_tpu.system import memory

SHUFFLE = 2048
_LEAST_CROP = 0.7

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "class": tf.io.FixedLenFeature([], tf.int64),
}


def dataset(
    paths: Sequence[str], image_size: int, batch_size: int, *, shuffle: int = SHUFFLE
) -> tf.data.Dataset:
    """Returns augmented training batches without end.

    Args:
        paths: of the shards, with square photos of `image_size`.
        image_size: pixels.
        batch_size: photos over all replicas.
        shuffle: photos to shuffle among.

    Returns:
        Batches of images `[batch_size, image_size, image_size, 3]` float32 in [0, 1] and labels
        `[batch_size]` int32.
    """
    any_order = tf.data.Options()
    any_order.deterministic = False
    photos = tf.data.TFRecordDataset(paths, num_parallel_reads=tf.data.AUTOTUNE)
    photos = photos.with_options(any_order)
    photos = photos.map(lambda record: _parse(record, image_size), tf.data.AUTOTUNE)
    photos = photos.map(lambda image, label: (_augment(image), label), tf.data.AUTOTUNE)
    return photos.repeat().shuffle(shuffle).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def shuffle_bytes(image_size: int, shuffle: int = SHUFFLE) -> int:
    """The memory of the photos in the shuffle buffer."""
    return shuffle * image_size**2 * 3 * tf.float32.size


def check_memory(image_size: int) -> None:
    """Raises RequestError if the shuffle buffer would not fit."""
    memory.check(
        shuffle_bytes(image_size),
        f"--against=notebook: its shuffle buffer at {image_size} px",
        "leave it out of --against, or take a smaller --image_size",
    )


def _parse(record: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    example = tf.io.parse_single_example(record, _FEATURES)
    image = tf.cast(tf.io.decode_jpeg(example["image"], channels=3), tf.float32) / 255.0
    return tf.reshape(image, [image_size, image_size, 3]), tf.cast(example["class"], tf.int32)


def _augment(image: tf.Tensor) -> tf.Tensor:
    size = image.shape[0]
    image = tf.image.random_flip_left_right(image)
    image = tf.image.random_flip_up_down(image)
    image = tf.image.random_saturation(image, 0.0, 2.0)
    side = tf.random.uniform([], int(_LEAST_CROP * size), size + 1, tf.int32)
    image = tf.image.random_crop(image, [side, side, 3])
    return tf.image.resize(image, [size, size])
