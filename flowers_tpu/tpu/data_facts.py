"""What of a data set decides how steps look and are fed; assumed if there is none."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from flowers_tpu.data import classes
from flowers_tpu.data.shards import find_shards
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError, first_line

_SECONDS = 2.0  # of measuring the input
_STEPS = 1_000_000  # more than are done in that time


class DataFacts(NamedTuple):
    """What is known of a data set.

    Attributes:
        num_classes: number of classes.
        photo_size: side of the training photos, pixels.
        training_photos: how many there are.
        assumed: why these are the competition's figures; '' if they are the data's own.
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


def data_facts(recipe: Recipe) -> DataFacts:
    """Looks at the names of a local data set's files; else assumes the competition's.

    The drawn photos of the example and data on `gs://` are not looked at.
    """
    options = recipe.spec.data
    if options.data_dir == "example":
        reason = "the drawn photos of --data_dir=example are not looked at"
    elif "://" in options.data_dir:
        hint = "" if options.classes else "; --classes=FILE names their classes"
        reason = f"the photos of --data_dir={options.data_dir} are not looked at from here{hint}"
    else:
        try:
            folder = recipe.data_folder()
            shards = find_shards(folder, "train")
            count = sum(shard.count for shard in shards)
            names = data_lib.class_names_of(options, folder) or classes.FLOWERS
            return DataFacts(len(names), shards[0].image_size, count)
        except RequestError as error:
            reason = str(error)
    names = classes.read_classes(options.classes) if options.classes else classes.FLOWERS
    return DataFacts(len(names), options.image_size, 12_753, reason)


def input_rate(recipe: Recipe, facts: DataFacts, stated: float) -> InputRate:
    """Returns what a host's input delivers: as stated, else as measured on this machine.

    It only adds to a check, so whatever goes wrong is its origin, and is not raised.

    Args:
        recipe: of one replica.
        facts: of its data.
        stated: photos/s; 0 if not known.
    """
    if stated:
        return InputRate(stated, "as --host_images_per_second says")
    if facts.assumed:
        return InputRate(None, "not measured: no data to measure it with")
    try:
        with terminal.bar(1, "measuring the input", "measurement"):
            return InputRate(input_images_per_second(recipe), "measured on this machine")
    except Exception as error:  # bad records, no memory for a cache, a disk that fails, …
        return InputRate(None, f"not measured: {first_line(error)}")


def input_images_per_second(recipe: Recipe) -> float:
    """Measures in seconds what this machine's input delivers of training photos.

    Args:
        recipe: of one replica; its data are there.
    """
    data = recipe.load_data(("train",))
    recipe.plan(data)  # refuses fewer photos than a batch has
    iterator = iter(Feed(recipe, data.splits).train_batches(0, _STEPS))
    _batches_per_second(iterator, _SECONDS / 4)  # fills the buffers
    return recipe.resolved.photos_per_step * _batches_per_second(iterator, _SECONDS)


def _batches_per_second(iterator: Iterator, seconds: float) -> float:
    begin, count = time.monotonic(), 0
    while (took := time.monotonic() - begin) < seconds:
        next(iterator)
        count += 1
    return count / took
