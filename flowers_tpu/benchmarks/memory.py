"""How much memory a process needs at most, each measured in a fresh one.

    python -m flowers_tpu.benchmarks.memory WORK CONFIG

prints a JSON object: `import`, the memory once TensorFlow is imported, and `peak`, the largest that
the process has had when its work is done; bytes.
"""

import json
import os
import resource
import sys

from flowers_tpu.benchmarks import process
from flowers_tpu.options import Config
from flowers_tpu.system import allocator

_BATCHES_AFTER = 32  # that are read when the shuffle buffer is full
_STEPS = 3  # of training: from the first one on, memory is as it stays


def peak(work: str, config: Config) -> dict[str, float]:
    """Runs one of `WORKS` in a process of its own; returns bytes: `import` and `peak`.

    Raises:
        RunError: the process fails.
    """
    return process.run(__name__, [work], config)


def _read_notebook(config: Config) -> None:
    from flowers_tpu.benchmarks import inputs, notebook

    def batches(config, strategy, data):
        return inputs.notebook_dataset(config, data.splits["train"])

    _read(config, batches, notebook.SHUFFLE)


def _read_ours(config: Config) -> None:
    from flowers_tpu.benchmarks import inputs

    _read(config, inputs.endless_batches, config.shuffle_buffer)


def _read(config: Config, make_batches, shuffle: int) -> None:
    """Reads until the shuffle buffer is full, and some batches more."""
    from flowers_tpu.benchmarks import inputs
    from flowers_tpu.runs import recipe

    devices = recipe.choose_devices(config)
    config = recipe.resolve(config, devices)
    data = recipe.load_data(config, ("train",))
    batches = make_batches(config, devices.strategy, data)
    inputs.reader(devices.strategy, batches)(shuffle // config.global_batch_size + _BATCHES_AFTER)


def _train(config: Config) -> None:
    """Trains some steps of the real loop."""
    from flowers_tpu.benchmarks import compute, end_to_end, inputs
    from flowers_tpu.runs import recipe

    devices = recipe.choose_devices(config)
    config = recipe.resolve(config, devices)
    data = recipe.load_data(config, ("train",))
    work = compute.make_work(config, devices.strategy, data)
    batches = inputs.endless_batches(config, devices.strategy, data)
    end_to_end.side(work, "loop", batches).open()(_STEPS)


WORKS = {"notebook": _read_notebook, "ours": _read_ours, "training": _train}


def resident_peak() -> float:
    """The largest part of this process that was ever in memory, bytes."""
    try:
        # What `getrusage` tells begins with the memory of the process that started this one.
        with open("/proc/self/status") as file:
            (line,) = (line for line in file if line.startswith("VmHWM:"))
        return float(line.split()[1]) * 1024
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(work: str, config: str) -> None:
    """Does the work and prints what memory it took."""
    if work != "notebook":  # whose users have the allocator as it is
        allocator.keep_freed_memory()
    import tensorflow  # noqa: F401  (the package above has chosen Keras 2 by now)

    imported = resident_peak()
    WORKS[work](process.read_config(config))
    print(json.dumps({"import": imported, "peak": resident_peak()}), flush=True)
    os._exit(0)  # without waiting for the input's threads


if __name__ == "__main__":
    main(*sys.argv[1:])
