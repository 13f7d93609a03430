"""How long a run takes from the start of its process to its first step, measured in a fresh one.

    python -m flowers_tpu.benchmarks.startup BEGIN CONFIG

BEGIN is when the process was started, seconds since the epoch. Prints a JSON object of seconds.

What runs is what `scripts/train.py` calls, in a run directory of its own, until its second step is
done: TensorFlow's start, reading and checking the data, the model, the files of the run and of
TensorBoard are all in the time. Not in it are the parsing of flags, and the loading of weights
(nothing shall be downloaded, and drawing random ones takes their place).
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from flowers_tpu import allocator, quiet
from flowers_tpu.benchmarks import process
from flowers_tpu.config import Config

# What the time goes to, in order.
PARTS = ("imports", "building", "tracing", "compiling", "a step")


def seconds(config: Config) -> dict[str, float]:
    """Returns the seconds of each of `PARTS`, and their sum as `total`.

    Args:
        config: of a run on a data set with all three splits.

    Raises:
        RunError: the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = dataclasses.replace(
            config,
            run_dir=os.path.join(folder, "run"),
            weights="none",
            steps_per_loop=0,  # its first calls do one step each
            epochs=config.epochs + 1,  # however few photos there are, there is a second step
        )
        return process.run(__name__, [repr(time.time())], run)


def main(begin: str, config_text: str) -> None:
    """Trains until the second step is done, and prints what took how long."""
    allocator.keep_freed_memory()  # this and the next as `train.py` does
    with quiet.without_chatter():
        from flowers_tpu import experiment
        from flowers_tpu.training import loop
    times = [float(begin), time.time()]
    fit = loop.fit
    loop.fit = lambda **arguments: fit(**_watched(arguments, times))
    experiment.train(process.read_config(config_text))


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


def _watched(arguments: dict[str, Any], times: list[float]) -> dict[str, Any]:
    """The arguments of `loop.fit`, so changed that it adds to the times when what is done."""

    def train_steps(stage: str) -> Callable:
        function = arguments["train_steps"](stage)

        def traced_first(*given):
            if len(times) == 2:
                times.append(time.time())
                function.get_concrete_function(*given)
                times.append(time.time())
            return function(*given)

        return traced_first

    def on_steps(call) -> None:
        times.append(time.time())
        if len(times) == 6:
            print(json.dumps(split(*times)), flush=True)
            os._exit(0)  # without waiting for the input's threads

    return {**arguments, "train_steps": train_steps, "on_steps": on_steps}


if __name__ == "__main__":
    main(*sys.argv[1:])
