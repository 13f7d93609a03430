"""The input side alone: how many photos per second each way of feeding a model delivers."""

import dataclasses
import functools
import time
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.benchmarks import bench, notebook
from flowers_tpu.benchmarks.rounds import Run, Side, timed
from flowers_tpu.data import records
from flowers_tpu.data.splits import Split
from flowers_tpu.options import Config
from flowers_tpu.runs import feed, recipe
from flowers_tpu.training import calls

# The project's ways of feeding a model: what a configuration is changed to. Where the device
# augments, that is not among what the input does.
WAYS = {
    "host augments": {"augment_on": "host", "cache": "none"},
    "device augments": {"augment_on": "device", "cache": "none"},
    "device augments, records cached": {"augment_on": "device", "cache": "records"},
    "device augments, pixels cached": {"augment_on": "device", "cache": "pixels"},
}
_STEPS_AHEAD = 2
_STEPS = 1_000_000  # of a plan: more than a turn takes


def sides(
    config: Config, strategy: tf.distribute.Strategy, data: recipe.Data, *, with_notebook: bool
) -> tuple[list[Side], dict[str, float]]:
    """Returns the sides to measure, and how long it took to fill each cache, seconds.

    A cache or a notebook that does not fit into memory is left out, with a line that tells so.

    Args:
        config: resolved.
        strategy: whose replicas are fed.
        data: with the training split.
        with_notebook: whether the notebook's pipeline is one of them.
    """
    photos = config.global_batch_size
    split = data.splits["train"]
    bare = decoded(split, photos)
    found = [Side("decode", photos, lambda: reader(strategy, bare))]
    filling = {}
    for name, changes in WAYS.items():
        begin, cache = time.perf_counter(), changes["cache"]
        with bench.leaving_out(f"input, {name}"):
            batches = endless_batches(dataclasses.replace(config, **changes), strategy, data)
            found.append(Side(name, photos, functools.partial(reader, strategy, batches)))
            if cache != "none":
                filling[cache] = time.perf_counter() - begin
    if with_notebook:
        # Its turns come first, but it is asked for last: the caches have taken their memory.
        with bench.leaving_out("input, notebook"):
            dataset = notebook_dataset(config, split)
            found.insert(0, Side("notebook", photos, lambda: reader(strategy, dataset)))
    return found, filling


def endless_plan(config: Config, data: recipe.Data) -> calls.Plan:
    """The plan of a run with more steps than a turn takes, all of them fine-tuning.

    Raises:
        RequestError: there are fewer training photos than a global batch has.
    """
    epochs = -(-_STEPS // max(1, data.splits["train"].size // config.global_batch_size))
    return recipe.make_plan(dataclasses.replace(config, warmup_epochs=0, epochs=epochs), data)


def endless_batches(
    config: Config, strategy: tf.distribute.Strategy, data: recipe.Data, first_step: int = 0
) -> feed.Batches:
    """The batches of a run that goes on for longer than a measurement; fills the cache.

    Raises:
        RequestError: the cache does not fit into memory, or see `endless_plan`.
    """
    plan = endless_plan(config, data)
    source = feed.train_source(config, data.splits["train"])
    return feed.train_batches(config, strategy, source, plan, first_step)


def notebook_dataset(config: Config, split: Split) -> tf.data.Dataset:
    """The notebook's batches of a split.

    Raises:
        RequestError: its shuffle buffer does not fit into memory.
    """
    notebook.check_memory(split.photo_size)
    paths = [shard.path for shard in split.shards]
    return notebook.dataset(paths, split.photo_size, config.global_batch_size)


def decoded(split: Split, batch_size: int) -> tf.data.Dataset:
    """Parsed, decoded whole and batched, and nothing else."""

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = records.parse(serialized)
        image = tf.io.decode_jpeg(parsed["image"], channels=3)
        return tf.ensure_shape(image, [split.photo_size] * 2 + [3]), parsed["label"]

    serialized = tf.data.TFRecordDataset([shard.path for shard in split.shards]).repeat()
    photos = serialized.map(example, tf.data.AUTOTUNE)
    return photos.batch(batch_size, drop_remainder=True).prefetch(_STEPS_AHEAD)


def reader(strategy: tf.distribute.Strategy, batches: feed.Batches) -> Run:
    """Begins to read batches anew, as a compiled loop of training steps reads them."""
    read, iterator = _reader_function(strategy), feed.iterate(batches)
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
