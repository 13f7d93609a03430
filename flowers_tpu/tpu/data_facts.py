"""What of a data set decides what steps look like; assumed where there are no data."""

from typing import NamedTuple

import tensorflow as tf

from flowers_tpu import parts
from flowers_tpu.benchmarks import inputs, rounds
from flowers_tpu.config import Config
from flowers_tpu.data import classes, records
from flowers_tpu.errors import RequestError

_SECONDS = 2.0  # of measuring the input


class DataFacts(NamedTuple):
    """What is known of a data set.

    Attributes:
        num_classes: number of classes.
        photo_size: side of the training photos, pixels.
        training_photos: how many there are.
        are_there: whether this is read, not assumed.
    """

    num_classes: int
    photo_size: int
    training_photos: int
    are_there: bool


def data_facts(config: Config) -> DataFacts:
    """Looks at the names of a local data set's files; else assumes the competition's.

    The drawn photos of the example and data on `gs://` are not looked at.
    """
    if config.data_dir != "example" and "://" not in config.data_dir:
        try:
            folder = parts.data_folder(config)
            shards = records.find_shards(folder, "train", config.image_size)
        except RequestError:
            pass
        else:
            count = sum(shard.count for shard in shards)
            num_classes = len(parts.class_names(config, folder))
            return DataFacts(num_classes, shards[0].image_size, count, True)
    names = classes.read_classes(config.classes) if config.classes else classes.FLOWERS
    return DataFacts(len(names), config.image_size, 12_753, False)


def input_images_per_second(config: Config) -> float:
    """Measures in seconds what this machine's input delivers of training photos.

    Args:
        config: resolved for one replica; its data are there.
    """
    strategy = tf.distribute.get_strategy()
    data = parts.load_data(config, ("train",))
    batches = inputs.endless_batches(config, strategy, data)
    side = rounds.Side("input", config.global_batch_size, lambda: inputs.reader(strategy, batches))
    return rounds.measure([side], rounds=1, seconds=_SECONDS)["input"][0]
