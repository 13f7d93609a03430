"""From a source to batches: order -> skip -> decode -> augment -> batch of a fixed shape.

A batch is a dict of `image` `[batch, side, side, 3]` uint8, `label` `[batch]` int32 and `weight`
`[batch]` float32: 1, or 0 for what only fills the last batch of an evaluation up. Where the device
augments or mixes, a training batch also has `draws` `[batch, NUM_DRAWS]` float32.

Several workers share every global batch: each passes over the examples of the others while they are
bytes or numbers, and decodes its own alone.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.data import order
from flowers_tpu.data.augment.draws import draws_from
from flowers_tpu.data.source import Source

_STEPS_AHEAD = 2

Batch = dict[str, tf.Tensor]


def train_dataset(
    source: Source,
    *,
    global_batch_size: int,
    local_batch_size: int,
    augment_photo: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None,
    mixes: bool = False,
    seed: int,
    shuffle_buffer: int,
    first_step: int = 0,
    num_steps: int,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Returns the batches of steps `first_step` to `num_steps` - 1 of a run, over all its epochs.

    Each epoch has `split.size // global_batch_size` steps; what is left over differs from epoch to
    epoch, as the order does. Nothing of skipped examples is decoded.

    Args:
        source: of the training split.
        global_batch_size: photos of one step over all replicas.
        local_batch_size: photos of one batch of the dataset: one replica's.
        augment_photo: maps a photo and its draws to what the model sees (`apply.on_host`); None
            where the device does it, which then gets the draws.
        mixes: whether the device mixes photos, so that it gets the draws in any case.
        seed: of order and augmentation.
        shuffle_buffer: see `order.ordered`.
        first_step: where to begin.
        num_steps: where the run ends.
        worker: which part of each global batch to give, from 0.
        workers: into how many parts it is divided.
    """
    split = source.split
    steps_per_epoch = split.size // global_batch_size

    def epoch_elements(epoch: tf.Tensor) -> tf.data.Dataset:
        skipped_steps = tf.where(
            epoch == first_step // steps_per_epoch,
            tf.constant(first_step % steps_per_epoch, tf.int64),
            tf.constant(0, tf.int64),
        )
        skipped = skipped_steps * global_batch_size
        ordered = order.ordered(
            source.elements,
            len(split.shards),
            seed=seed,
            epoch=epoch,
            shuffle_buffer=shuffle_buffer,
        )
        elements = ordered.take(steps_per_epoch * global_batch_size).skip(skipped)
        draws = draws_from(seed, epoch * split.size + skipped)
        return tf.data.Dataset.zip((elements, draws))

    def complete(example: Batch, draws: tf.Tensor) -> Batch:
        if augment_photo is not None:
            example["image"] = augment_photo(example["image"], draws)
        if mixes or augment_photo is None:
            example["draws"] = draws
        return {**example, "weight": tf.ones_like(example["label"], tf.float32)}

    first_epoch, num_epochs = first_step // steps_per_epoch, -(-num_steps // steps_per_epoch)
    elements = tf.data.Dataset.range(first_epoch, num_epochs).flat_map(epoch_elements)
    elements = elements.take((num_steps - first_step) * global_batch_size)
    return _batches(
        _part(elements, global_batch_size, worker, workers),
        source,
        complete,
        local_batch_size,
        batches_per_step=global_batch_size // workers // local_batch_size,
        one_by_one=augment_photo is not None,
    )


def eval_dataset(
    source: Source,
    *,
    global_batch_size: int,
    local_batch_size: int,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Returns a split in file order, filled up with weight 0 to whole global batches.

    Unlabeled photos have label 0 and weight 1. See `eval_steps` for the number of global batches,
    and `train_dataset` for the arguments.
    """
    size = source.split.size
    padding = eval_steps(size, global_batch_size) * global_batch_size - size
    elements = tf.data.Dataset.range(len(source.split.shards)).flat_map(source.elements)
    # Without `cache` a file would be opened for every photo that fills up.
    elements = elements.concatenate(elements.take(1).cache().repeat(padding))
    weights = tf.data.Dataset.range(size + padding).map(lambda n: tf.cast(n < size, tf.float32))

    def complete(example: Batch, weight: tf.Tensor) -> Batch:
        return {**example, "label": tf.maximum(example["label"], 0), "weight": weight}

    return _batches(
        _part(tf.data.Dataset.zip((elements, weights)), global_batch_size, worker, workers),
        source,
        complete,
        local_batch_size,
        batches_per_step=global_batch_size // workers // local_batch_size,
    )


def eval_steps(num_examples: int, global_batch_size: int) -> int:
    """The number of global batches that hold every example once."""
    return -(-num_examples // global_batch_size)


def distribute(
    strategy: tf.distribute.Strategy,
    dataset: Callable[[int, int], tf.data.Dataset],
    *,
    fetches_ahead: bool,
) -> tf.distribute.DistributedDataset | tf.data.Dataset:
    """Gives replica r of a step the r-th of its consecutive local batches.

    Args:
        strategy: whose replicas get them.
        dataset: gives the dataset of (worker, workers).
        fetches_ahead: whether TensorFlow copies batches to the devices before their step.
    """
    options = None
    if not fetches_ahead:
        options = tf.distribute.InputOptions(
            experimental_fetch_to_device=False, experimental_per_replica_buffer_size=0
        )

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = dataset(context.input_pipeline_id, context.num_input_pipelines)
        if context.num_input_pipelines > 1:
            # Else several workers would ask each other at each step whether all still have a batch,
            # and batches would have no static shape. Who reads them counts the steps.
            batches = batches.apply(
                tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            )
        return batches

    return strategy.distribute_datasets_from_function(of_worker, options)


def _part(
    elements: tf.data.Dataset, global_batch_size: int, worker: int, workers: int
) -> tf.data.Dataset:
    """Leaves a worker its consecutive part of every global batch."""
    if workers == 1:
        return elements
    share = global_batch_size // workers
    mine = elements.enumerate().filter(
        lambda position, _: position % global_batch_size // share == worker
    )
    return mine.map(lambda _, element: element)


def _batches(
    elements: tf.data.Dataset,
    source: Source,
    complete: Callable[..., Batch],
    batch_size: int,
    *,
    batches_per_step: int,
    one_by_one: bool = False,
) -> tf.data.Dataset:
    """Makes batches of examples of (element, more), a batch at once where the source can."""
    if (examples := source.examples) and not one_by_one:
        # Memory limits this: with more of them at a time than cores it takes a tenth longer.
        batches = elements.batch(batch_size, drop_remainder=True).map(
            lambda element, more: complete(examples(element), more),
            num_parallel_calls=os.cpu_count(),
        )
    else:
        batches = elements.map(
            lambda element, more: complete(source.example(element), more),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).batch(batch_size, drop_remainder=True)
    return batches.prefetch(_STEPS_AHEAD * batches_per_step)
