"""From a resolved Config to what a model is fed: sources, augmentation, distributed batches."""

import functools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from flowers_tpu import quiet
from flowers_tpu.config import Config
from flowers_tpu.data import augment, decode, order, pipeline, records, source
from flowers_tpu.data.augment import Augmentation
from flowers_tpu.data.source import Source
from flowers_tpu.errors import RequestError
from flowers_tpu.training import loop

Batches = tf.distribute.DistributedDataset | tf.data.Dataset


def augmentation(config: Config) -> Augmentation:
    """What may happen to a training photo."""
    return Augmentation(
        flip_left_right=config.flip_left_right,
        flip_up_down=config.flip_up_down,
        saturation=(config.saturation_lower, config.saturation_upper),
        crop_min=config.crop_min,
        brightness=config.brightness,
        contrast=config.contrast,
        hue=config.hue,
        rotation=config.rotation,
        zoom=config.zoom,
        translation=config.translation,
        random_erasing=config.random_erasing,
    )


def augment_on_host(config: Config) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """Gives `(photo, draws) -> image` where the host augments, a photo at a time; else None."""
    if config.augment_on == "device":
        return None
    return _bound(augment.on_host, config)


def augment_on_device(config: Config) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """Gives `(images, draws) -> images` where the device augments, a batch at a time; else None."""
    if config.augment_on == "host":
        return None
    return _bound(augment.on_device, config)


def train_decoder(config: Config, photo_size: int) -> decode.Decoder:
    """How photos are decoded that augmentation cuts from."""
    wanted = augmentation(config)
    return decode.for_training(photo_size, config.image_size, wanted.least_side, warps=wanted.warps)


def check_cache(
    config: Config, strategy: tf.distribute.Strategy, train: records.Split, val: records.Split
) -> None:
    """Raises RequestError where the cache asked for cannot be; fills nothing.

    It may not fit into memory; or several hosts read, which cannot see that of this one.
    """
    hosts = getattr(strategy.extended, "num_hosts", 1)
    if config.cache != "none" and hosts > 1:
        raise RequestError(
            f"--cache={config.cache}: keeps photos in the memory of one host, but {hosts} hosts "
            "read them; use --cache=none"
        )
    _check_cache(config, (train, val), _decoders(config, train, val))


def train_and_val_sources(
    config: Config, train: records.Split, val: records.Split
) -> tuple[Source, Source]:
    """Returns where training takes its photos from, and validation; fills the cache asked for.

    Raises:
        RequestError: see `check_cache`.
    """
    train_source, val_source = _sources(config, (train, val), _decoders(config, train, val))
    return train_source, val_source


def train_source(config: Config, train: records.Split) -> Source:
    """Returns where training takes its photos from; see `train_and_val_sources`."""
    (source,) = _sources(config, (train,), (train_decoder(config, train.photo_size),))
    return source


def train_batches(
    config: Config, strategy: tf.distribute.Strategy, train: Source, plan: loop.Plan,
    first_step: int,
) -> Batches:  # fmt: skip
    """The distributed training batches from a step on."""
    if config.augment_on == "host":
        with quiet.without_chatter():
            augment.compile_for_host(
                train.side, image_size=config.image_size, augmentation=augmentation(config)
            )
    dataset = functools.partial(
        pipeline.train_dataset,
        train,
        global_batch_size=plan.global_batch_size,
        local_batch_size=config.batch_size_per_replica,
        augment_photo=augment_on_host(config),
        seed=config.seed,
        shuffle_buffer=config.shuffle_buffer,
        first_step=first_step,
        num_steps=len(plan.rates),
    )
    return pipeline.distribute(strategy, lambda w, n: dataset(worker=w, workers=n))


def eval_batches(
    config: Config, strategy: tf.distribute.Strategy, split: records.Split | Source
) -> Batches:
    """The distributed batches of a split in file order, filled up with weight 0."""
    if isinstance(split, records.Split):
        decoder = decode.for_evaluation(split.photo_size, config.image_size)
        split = source.from_files(split, decoder)
    dataset = functools.partial(
        pipeline.eval_dataset,
        split,
        global_batch_size=config.global_batch_size,
        local_batch_size=config.batch_size_per_replica,
    )
    return pipeline.distribute(strategy, lambda w, n: dataset(worker=w, workers=n))


def ids_of_step(config: Config, split: records.Split, step: int) -> list[str]:
    """Returns the ids of the photos that a training step sees, without reading anything."""
    batch = config.global_batch_size
    epoch, position = divmod(step, split.size // batch)
    indices = order.epoch_indices(
        [shard.count for shard in split.shards],
        seed=config.seed,
        epoch=epoch,
        shuffle_buffer=config.shuffle_buffer,
    )
    return list(split.ids[indices[position * batch : (position + 1) * batch]])


def iterate(batches: Batches) -> Iterator:
    """Returns an iterator over batches."""
    with quiet.without_chatter():
        return iter(batches)


def _decoders(
    config: Config, train: records.Split, val: records.Split
) -> tuple[decode.Decoder, decode.Decoder]:
    val_decoder = decode.for_evaluation(val.photo_size, config.image_size)
    return train_decoder(config, train.photo_size), val_decoder


def _check_cache(
    config: Config, splits: Sequence[records.Split], decoders: Sequence[decode.Decoder]
) -> None:
    needed = 0
    if config.cache == "records":
        needed = sum(source.bytes_of_records(split) for split in splits)
    elif config.cache == "pixels":
        needed = sum(map(source.bytes_of_pixels, splits, decoders))
    source.check_memory(config.cache, needed)


def _sources(
    config: Config, splits: Sequence[records.Split], decoders: Sequence[decode.Decoder]
) -> list[Source]:
    _check_cache(config, splits, decoders)
    make = {
        "none": source.from_files,
        "records": source.from_records,
        "pixels": source.from_pixels,
    }[config.cache]
    with quiet.without_chatter():
        return list(map(make, splits, decoders))


def _bound(function: Callable, config: Config) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    options = {"image_size": config.image_size, "augmentation": augmentation(config)}
    return lambda images, draws: function(images, draws, **options)
