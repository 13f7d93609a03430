"""Small data sets and models for tests."""

import functools
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from flowers_tpu.data import decode, records, source
from flowers_tpu.data.augment import apply
from flowers_tpu.data.augment.options import Augmentation
from flowers_tpu.data.splits import Split
from flowers_tpu.models.classifier import Classifier, build_classifier
from flowers_tpu.models.options import ModelOptions

# Leaves a photo as it is.
UNCHANGED = Augmentation(
    flip_left_right=False,
    flip_up_down=False,
    crop_min=1.0,
    saturation_lower=1.0,
    saturation_upper=1.0,
)


def jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """Encodes `[height, width, 3]` uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def photo(generator: np.random.Generator, size: int) -> np.ndarray:
    """A photo of soft random colours."""
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR))


def write_split(folder, split: str, count: int, *, size=32, num_classes=3, shards=2, seed=0):
    """Writes `count` photos; returns their labels. Ids are like train-0007."""
    generator = np.random.default_rng([seed, count, len(split)])
    labels = generator.integers(0, num_classes, count)
    serialized = [
        records.serialize_example(
            f"{split}-{number:04d}",
            jpeg(photo(generator, size) // 3 + np.uint8(label * 50)),
            None if split == "test" else int(label),
        )
        for number, label in enumerate(labels)
    ]
    records.write_shards(str(folder / split), serialized, size, shards)
    return labels


def write_data_set(folder, *, train=24, val=9, test=5, size=32, num_classes=3):
    """Writes a data set that is learned quickly: classes differ in brightness."""
    for split, count in (("train", train), ("val", val), ("test", test)):
        write_split(folder, split, count, size=size, num_classes=num_classes)
    (folder / "classes.txt").write_text("".join(f"class {n}\n" for n in range(num_classes)))
    ids = "".join(f"test-{number:04d},0\n" for number in range(test))
    (folder / "sample_submission.csv").write_text(f"id,label\n{ids}")
    return folder


def source_of(split: Split) -> source.Source:
    """The photos of a split as they are, from its files."""
    return source.from_files(split, decode.for_evaluation(split.photo_size, split.photo_size))


def augment_photo(size: int, augmentation: Augmentation | None = None):
    """What `pipeline.train_dataset` takes where the host augments; by default the notebook's."""
    augmentation = augmentation or Augmentation()
    return functools.partial(apply.on_host, image_size=size, augmentation=augmentation)


def linear_classifier(num_classes: int, size: int = 2, seed: int = 0) -> Classifier:
    """Softmax regression on pixels / 255, whose gradients are worked out by hand easily."""
    images = tf.keras.Input((size, size, 3), dtype=tf.uint8)
    flat = tf.keras.layers.Flatten()(tf.keras.layers.Rescaling(1 / 255)(images))
    features = tf.keras.Model(images, flat)
    pooled = tf.keras.Input((size * size * 3,))
    initializer = tf.keras.initializers.RandomNormal(seed=seed)
    dense = tf.keras.layers.Dense(num_classes, kernel_initializer=initializer)
    head = tf.keras.Model(pooled, dense(pooled))
    return Classifier(tf.keras.Model(images, head(features(images))), features, head)


def small_classifier(
    num_classes: int,
    *,
    image_size: int = 32,
    evaluation_size: int = 0,
    arithmetic: str = "float32",
    seed: int = 0,
    **options,
) -> Classifier:
    """What `build_classifier` makes of options; by default the smallest, with random weights."""
    return build_classifier(
        ModelOptions(**{"backbone": "small_cnn", "weights": "none"} | options),
        num_classes=num_classes,
        image_size=image_size,
        evaluation_size=evaluation_size,
        arithmetic=arithmetic,
        seed=seed,
    )


def batch(size: int, num_classes: int, *, side: int = 2, seed: int = 0, weights=None) -> dict:
    """A random batch as NumPy arrays."""
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (size, side, side, 3), dtype=np.uint8),
        "label": generator.integers(0, num_classes, size, dtype=np.int32),
        "weight": np.ones(size, np.float32) if weights is None else np.float32(weights),
    }


def distributed(strategy: tf.distribute.Strategy, arrays: dict):
    """Splits a batch over the replicas in order, as the pipeline does."""
    replicas = strategy.num_replicas_in_sync
    rows = len(arrays["label"]) // replicas

    def value(context, name):
        begin = context.replica_id_in_sync_group * rows
        return tf.constant(arrays[name][begin : begin + rows])

    return {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name: value(context, name)
        )
        for name in arrays
    }
