"""How long it takes to the first batch, at the first step of an epoch and at its last."""

import functools
import time
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu import parts
from flowers_tpu.benchmarks import inputs
from flowers_tpu.config import Config


def turns(
    config: Config, strategy: tf.distribute.Strategy, data: parts.Data
) -> dict[str, Callable[[], float]]:
    """Returns what times the beginning and the end of an epoch, in seconds.

    Each builds the batches from that step on, as a run that resumes there does, and waits for one.
    """
    steps = data.splits["train"].size // config.global_batch_size
    return {
        name: functools.partial(_seconds, config, strategy, data, step)
        for name, step in (("first step", 0), ("last step", steps - 1))
    }


def _seconds(
    config: Config, strategy: tf.distribute.Strategy, data: parts.Data, step: int
) -> float:
    begin = time.perf_counter()
    inputs.reader(strategy, inputs.endless_batches(config, strategy, data, step))(1)
    return time.perf_counter() - begin
