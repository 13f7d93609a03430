"""How long checkpoints take; training stands still for all of a save."""

import os
import time
from collections.abc import Callable

from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.state import TrainState


def turns(state: TrainState, folder: str) -> dict[str, Callable[[], float]]:
    """Returns what times, in seconds, a save of all of a state, one of its weights, and a restore.

    Args:
        state: of a run.
        folder: for the checkpoints.
    """
    checkpoints = Checkpoints(folder, state)
    works = {
        "save all": checkpoints.save_latest,
        "save the weights": lambda: checkpoints.save_best(1),
        "restore all": checkpoints.restore_latest,
    }

    def turn(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return {name: lambda work=work: turn(work) for name, work in works.items()}


def newest_size(folder: str) -> int:
    """The size of the newest checkpoint of all of a state that `turns` saved, bytes."""
    sizes = {
        entry.name: entry.stat().st_size for entry in os.scandir(os.path.join(folder, "latest"))
    }
    numbers = {int(name.split(".")[0].removeprefix("ckpt-")) for name in sizes if "." in name}
    return sum(size for name, size in sizes.items() if name.startswith(f"ckpt-{max(numbers)}."))
