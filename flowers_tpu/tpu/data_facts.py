"""What of a data set decides what steps look like and are fed by; assumed where there are none."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.benchmarks import inputs, rounds
from flowers_tpu.data import classes
from flowers_tpu.data.shards import find_shards
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import terminal
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError, first_line

_SECONDS = 2.0  # of measuring the input


class DataFacts(NamedTuple):
    """What is known of a data set.

    Attributes:
        num_classes: number of classes.
        photo_size: side of the training photos, pixels.
        training_photos: how many there are.
        assumed: why these are the competition's figures; '' where they are the data's own.
    """

    num_classes: int
    photo_size: int
    training_photos: int
    assumed: str = ""


class InputRate(NamedTuple):
    """What the input of one host delivers.

    Attributes:
        images_per_second: training photos; None if not known.
        origin: where the figure comes from, or why there is none.
    """

    images_per_second: float | None
    origin: str


def data_facts(config: Config) -> DataFacts:
    """Looks at the names of a local data set's files; else assumes the competition's.

    The drawn photos of the example and data on `gs://` are not looked at.
    """
    if config.data_dir == "example":
        reason = "the drawn photos of --data_dir=example are not looked at"
    elif "://" in config.data_dir:
        hint = "" if config.classes else "; --classes=FILE tells their classes"
        reason = f"the photos of --data_dir={config.data_dir} are not looked at from here{hint}"
    else:
        try:
            folder = recipe.data_folder(config)
            shards = find_shards(folder, "train", config.image_size)
            count = sum(shard.count for shard in shards)
            num_classes = len(recipe.class_names(config, folder))
            return DataFacts(num_classes, shards[0].image_size, count)
        except RequestError as error:
            reason = str(error)
    names = classes.read_classes(config.classes) if config.classes else classes.FLOWERS
    return DataFacts(len(names), config.image_size, 12_753, reason)


def input_rate(given: Config, facts: DataFacts, stated: float) -> InputRate:
    """Returns what a host's input delivers: as stated, else as measured on this machine.

    It only adds to a check, so whatever goes wrong is told in its origin, not raised.

    Args:
        given: the configuration, not resolved.
        facts: of its data.
        stated: photos/s; 0 if not known.
    """
    if stated:
        return InputRate(stated, "as --host_images_per_second says")
    if facts.assumed:
        return InputRate(None, "not measured: no data to measure it with")
    one = Devices(tf.distribute.get_strategy(), "TPU", replicas=1)
    try:
        config = recipe.resolve(dataclasses.replace(given, global_batch_size=0), one)
        with terminal.bar(1, "measuring the input", "measurement"):
            return InputRate(input_images_per_second(config), "measured on this machine")
    except Exception as error:  # bad records, no memory for a cache, a disk that fails, …
        return InputRate(None, f"not measured: {first_line(error)}")


def input_images_per_second(config: Config) -> float:
    """Measures in seconds what this machine's input delivers of training photos.

    Args:
        config: resolved for one replica; its data are there.
    """
    strategy = tf.distribute.get_strategy()
    data = recipe.load_data(config, ("train",))
    batches = inputs.endless_batches(config, strategy, data)
    side = rounds.Side("input", config.global_batch_size, lambda: inputs.reader(strategy, batches))
    return rounds.measure([side], rounds=1, seconds=_SECONDS)["input"][0]
