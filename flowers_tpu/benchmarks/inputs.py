"""The input side alone: how many photos per second each way of feeding a model delivers."""

import functools
import time
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.benchmarks import notebook
from flowers_tpu.benchmarks.bench import leaving_out
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.data import records
from flowers_tpu.data.splits import Split
from flowers_tpu.runs.feed import Batches, Feed
from flowers_tpu.runs.recipe import Data, Recipe

# The project's ways of feeding a model, as flags. If the device augments, that is not among what
# the input does.
WAYS = {
    "host augments": {"augment_on": "host", "cache": "none"},
    "device augments": {"augment_on": "device", "cache": "none"},
    "device augments, records cached": {"augment_on": "device", "cache": "records"},
    "device augments, pixels cached": {"augment_on": "device", "cache": "pixels"},
}
STEPS = 1_000_000  # of a run that does not end: more than a turn takes
_STEPS_AHEAD = 2


def sides(
    recipe: Recipe, data: Data, *, with_notebook: bool
) -> tuple[list[Side], dict[str, float]]:
    """Returns the sides to measure, and how long it took to fill each cache, seconds.

    A cache or a notebook that does not fit into memory is left out, with a line that says so.

    Args:
        recipe: of the run that is fed.
        data: with the training split.
        with_notebook: whether the notebook's pipeline is one of them.
    """
    split, strategy = data.splits["train"], recipe.strategy
    photos = recipe.resolved.photos_per_step
    bare = decoded(split, photos)
    found = [Side("decode", photos, lambda: reader(strategy, bare))]
    filling = {}
    for name, flags in WAYS.items():
        begin, cache = time.perf_counter(), flags["cache"]
        with leaving_out(f"input, {name}"):
            batches = endless_batches(recipe.changed(**flags), data)
            found.append(Side(name, photos, functools.partial(reader, strategy, batches)))
            if cache != "none":
                filling[cache] = time.perf_counter() - begin
    if with_notebook:
        # Its turns come first, but it is asked for last: the caches have taken their memory.
        with leaving_out("input, notebook"):
            dataset = notebook_dataset(split, photos)
            found.insert(0, Side("notebook", photos, lambda: reader(strategy, dataset)))
    return found, filling


def endless_batches(recipe: Recipe, data: Data) -> Batches:
    """Returns the batches of a run that goes on for longer than a measurement; fills the cache.

    Raises:
        RequestError: the cache does not fit into memory, or there are fewer training photos than a
            global batch has.
    """
    recipe.plan(data)
    return Feed(recipe, data.splits).train_batches(0, STEPS)


def notebook_dataset(split: Split, batch_size: int) -> tf.data.Dataset:
    """Returns the notebook's batches of a split.

    Raises:
        RequestError: its shuffle buffer does not fit into memory.
    """
    notebook.check_memory(split.photo_size)
    return notebook.dataset([shard.path for shard in split.shards], split.photo_size, batch_size)


def decoded(split: Split, batch_size: int) -> tf.data.Dataset:
    """Returns photos parsed, decoded whole and batched, and nothing else."""

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = records.parse(serialized)
        image = tf.io.decode_jpeg(parsed["image"], channels=3)
        return tf.ensure_shape(image, [split.photo_size] * 2 + [3]), parsed["label"]

    serialized = tf.data.TFRecordDataset([shard.path for shard in split.shards]).repeat()
    photos = serialized.map(example, tf.data.AUTOTUNE)
    return photos.batch(batch_size, drop_remainder=True).prefetch(_STEPS_AHEAD)


def reader(strategy: tf.distribute.Strategy, batches: Batches) -> Run:
    """Begins to read batches anew, as a compiled loop of training steps reads them."""
    read, iterator = _reader_function(strategy), iter(batches)
    return timed(lambda steps: read(iterator, tf.constant(steps, tf.int64)).numpy())


@functools.cache
def _reader_function(strategy: tf.distribute.Strategy) -> Callable:
    """Compiled once for each kind of batch; returns the number of photos it has seen."""

    @tf.function
    def read(iterator, steps):
        photos = tf.constant(0)
        for _ in tf.range(steps):
            batch = next(iterator)
            labels = batch["label"] if isinstance(batch, dict) else batch[1]
            for local in strategy.experimental_local_results(labels):
                photos += tf.size(local)
        return photos

    return read
