"""From shards to batches: order -> skip -> decode -> augment -> batch of a fixed shape.

A batch is a dict of `image` `[batch, size, size, 3]` uint8, `label` `[batch]` int32 and `weight`
`[batch]` float32: 1, or 0 for what only fills the last batch of an evaluation up.
"""

import tensorflow as tf

from flowers_tpu.data import augment as augment_lib
from flowers_tpu.data import order, records

_BATCHES_AHEAD = 2


def train_dataset(
    split: records.Split,
    *,
    image_size: int,
    global_batch_size: int,
    local_batch_size: int,
    augmentation: augment_lib.Augmentation,
    seed: int,
    shuffle_buffer: int,
    first_step: int = 0,
    num_steps: int,
) -> tf.data.Dataset:
    """Returns the batches of steps `first_step` to `num_steps` - 1 of a run, over all its epochs.

    Each epoch has `split.size // global_batch_size` steps; what is left over differs from epoch to
    epoch, as the order does. Skipped examples are skipped as bytes: nothing of them is decoded.

    Args:
        split: the training split.
        image_size: side of the photos, pixels.
        global_batch_size: photos of one step over all replicas.
        local_batch_size: photos of one batch of the dataset: one replica's.
        augmentation: what may happen to a photo.
        seed: of order and augmentation.
        shuffle_buffer: see `order.ordered`.
        first_step: where to begin.
        num_steps: where the run ends.
    """
    steps_per_epoch = split.size // global_batch_size
    read_shard = records.shard_reader(split.shards)

    def epoch_examples(epoch: tf.Tensor) -> tf.data.Dataset:
        skipped_steps = tf.where(
            epoch == first_step // steps_per_epoch,
            tf.constant(first_step % steps_per_epoch, tf.int64),
            tf.constant(0, tf.int64),
        )
        serialized = order.ordered(
            read_shard,
            len(split.shards),
            seed=seed,
            epoch=epoch,
            shuffle_buffer=shuffle_buffer,
        )
        return (
            serialized.enumerate(start=epoch * split.size)
            .take(steps_per_epoch * global_batch_size)
            .skip(skipped_steps * global_batch_size)
        )

    def decode_augmented(number: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = records.parse(serialized)
        draws = augment_lib.draw(seed, number)
        if augmentation.crop_min < 1:
            window = augment_lib.crop_window(draws, image_size, augmentation)
            # Only the blocks of the JPEG that the crop touches are decoded.
            image = tf.image.decode_and_crop_jpeg(example["image"], window, channels=3)
        else:
            image = _decode(example["image"], image_size)
        image = augment_lib.augment(image, draws, image_size, augmentation)
        return {"image": image, "label": example["label"], "weight": tf.constant(1.0)}

    first_epoch = first_step // steps_per_epoch
    num_epochs = -(-num_steps // steps_per_epoch)
    return (
        tf.data.Dataset.range(first_epoch, num_epochs)
        .flat_map(epoch_examples)
        .take((num_steps - first_step) * global_batch_size)
        .map(decode_augmented, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(local_batch_size, drop_remainder=True)
        .prefetch(_BATCHES_AHEAD * max(1, global_batch_size // local_batch_size))
    )


def eval_dataset(
    split: records.Split, *, image_size: int, global_batch_size: int, local_batch_size: int
) -> tf.data.Dataset:
    """Returns a split in file order, filled up with weight 0 to whole global batches.

    Unlabeled photos have label 0 and weight 1. See `eval_steps` for the number of global batches.
    """
    padding = eval_steps(split.size, global_batch_size) * global_batch_size - split.size

    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = records.parse(serialized)
        image = _decode(example["image"], image_size)
        return {
            "image": image,
            "label": tf.maximum(example["label"], 0),
            "weight": tf.constant(1.0),
        }

    filler = {
        "image": tf.zeros([image_size, image_size, 3], tf.uint8),
        "label": tf.constant(0),
        "weight": tf.constant(0.0),
    }
    return (
        tf.data.Dataset.range(len(split.shards))
        .flat_map(records.shard_reader(split.shards))
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .concatenate(tf.data.Dataset.from_tensors(filler).repeat(padding))
        .batch(local_batch_size, drop_remainder=True)
        .prefetch(_BATCHES_AHEAD * max(1, global_batch_size // local_batch_size))
    )


def eval_steps(num_examples: int, global_batch_size: int) -> int:
    """The number of global batches that hold every example once."""
    return -(-num_examples // global_batch_size)


def distribute(
    strategy: tf.distribute.Strategy, dataset: tf.data.Dataset
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """Gives replica r of a step the r-th of its consecutive local batches."""
    return strategy.distribute_datasets_from_function(lambda context: dataset)


def _decode(jpeg: tf.Tensor, image_size: int) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_jpeg(jpeg, channels=3), [image_size, image_size, 3])
