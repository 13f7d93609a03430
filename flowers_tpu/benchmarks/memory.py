"""How much memory a process needs at most, each measured in a fresh one.

    python -m flowers_tpu.benchmarks.memory WORK FLAGS

WORK is `training`, or the input's alone: `ours` or `notebook`. FLAGS is a JSON object of the flags
of a run. Prints a JSON object: `import`, the memory once everything is imported, and `peak`, the
largest that the process has had when its work is done; bytes.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import allocator
from flowers_tpu.system.errors import RunError

_BATCHES_AFTER = 32  # that are read when the shuffle buffer is full
_STEPS = 3  # of training: from the first one on, memory is as it stays


def peak(work: str, flags: Mapping[str, Any]) -> dict[str, float]:
    """Does a work in a process of its own; returns bytes: `import` and `peak`.

    Raises:
        RunError: the process fails.
    """
    command = [sys.executable, "-m", __name__, work, json.dumps(flags)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"memory of {work}: the process ended with: {last}")
    return json.loads(process.stdout.splitlines()[-1])


def resident_peak() -> float:
    """Returns the largest part of this process that was ever in memory, bytes."""
    try:
        # What `getrusage` gives begins with the memory of the process that started this one.
        with open("/proc/self/status") as file:
            (line,) = (line for line in file if line.startswith("VmHWM:"))
        return float(line.split()[1]) * 1024
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(work: str, flags: str) -> None:
    """Does the work and prints what memory it took."""
    if work != "notebook":  # whose users have the allocator as it is
        allocator.keep_freed_memory()
    # Only now, as these import TensorFlow.
    from flowers_tpu.benchmarks import compute, inputs, notebook
    from flowers_tpu.benchmarks.work import make_work
    from flowers_tpu.runs.recipe import Recipe

    imported = resident_peak()
    recipe = Recipe.choose(Spec.of(**json.loads(flags)))
    data = recipe.load_data(("train",))
    shuffle, batch_size = recipe.spec.data.shuffle_buffer, recipe.resolved.photos_per_step
    if work == "notebook":
        batches = inputs.notebook_dataset(data.splits["train"], batch_size)
        shuffle = notebook.SHUFFLE
    else:
        batches = inputs.endless_batches(recipe, data)
    if work == "training":
        compute.loop_side(make_work(recipe, data), work, batches).open()(_STEPS)
    else:
        inputs.reader(recipe.strategy, batches)(shuffle // batch_size + _BATCHES_AFTER)
    print(json.dumps({"import": imported, "peak": resident_peak()}), flush=True)
    os._exit(0)  # without waiting for the input's threads


if __name__ == "__main__":
    main(*sys.argv[1:])
