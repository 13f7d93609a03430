"""When to stop: a pure function of the validation losses so far."""

import math
from collections.abc import Sequence


def best_epoch(losses: Sequence[float]) -> int | None:
    """Returns the index of the lowest loss, the first of equals; None where there is none."""
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    return min(finite, key=losses.__getitem__, default=None)


def should_stop(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` epochs all brought no better loss; `patience` 0: never."""
    best = best_epoch(losses)
    return bool(patience) and len(losses) - (0 if best is None else best + 1) >= patience
