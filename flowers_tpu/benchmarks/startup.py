"""How long a run takes from the start of its process to its first step, measured in a fresh one.

    python -m flowers_tpu.benchmarks.startup BEGIN CONFIG

BEGIN is when the process was started, seconds since the epoch. Prints a JSON object of seconds.
"""

import json
import os
import sys
import time

from flowers_tpu.benchmarks import process
from flowers_tpu.config import Config

# What the time goes to, in order.
PARTS = ("imports", "building", "tracing", "compiling", "a step")


def seconds(config: Config) -> dict[str, float]:
    """Returns the seconds of each of `PARTS`, and their sum as `total`.

    Raises:
        RunError: the process fails.
    """
    return process.run(__name__, [repr(time.time())], config)


def main(begin: str, config_text: str) -> None:
    """Does what training does until its first step is done, and prints what took how long."""
    import tensorflow as tf

    from flowers_tpu import experiment, feed, parts  # noqa: F401  (what `train.py` imports)
    from flowers_tpu.training import compiled

    times = [float(begin), time.time()]
    given = process.read_config(config_text)
    devices = parts.choose_devices(given)
    config = parts.resolve(given, devices)
    data = parts.load_data(config)
    plan = parts.make_plan(config, data)
    state = parts.make_state(config, devices.strategy, plan)
    source, _ = feed.train_and_val_sources(config, data.splits["train"], data.splits["val"])
    batches = feed.train_batches(config, devices.strategy, source, plan, first_step=0)
    iterator = feed.iterate(batches)
    times.append(time.time())
    function = compiled.compile_train_steps(
        devices.strategy, state, plan.stage(0), plan.seed, plan.objective,
        feed.augment_on_device(config),
    )  # fmt: skip
    one = tf.constant(1, tf.int64)
    function.get_concrete_function(iterator, one, state.progress.sums)
    times.append(time.time())
    for _ in range(2):
        _, norm, _ = function(iterator, one, state.progress.sums)
        norm.numpy()
        times.append(time.time())
    print(json.dumps(split(*times)), flush=True)
    os._exit(0)  # without waiting for the input's threads


def split(
    begin: float, imported: float, built: float, traced: float, first: float, second: float
) -> dict[str, float]:
    """Works out the parts from the times at which each was done.

    The first step compiles (and waits for the first photos); by the second one is known what a step
    itself takes.
    """
    step = min(second - first, first - traced)
    lengths = (imported - begin, built - imported, traced - built, first - traced - step, step)
    return {**dict(zip(PARTS, lengths, strict=True)), "total": first - begin}


if __name__ == "__main__":
    main(*sys.argv[1:])
