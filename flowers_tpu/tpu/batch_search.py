"""The largest batch that fits, in few tries: each one is a compilation of minutes."""

from collections.abc import Callable

_STEP = 8  # photos; TPUs lay out batches in eights


def largest_batch(
    need: Callable[[int], float], available: float, *, first: int, most: int
) -> tuple[int, int]:
    """Searches the largest batch whose memory fits; it grows nearly linearly with the batch.

    Each try is where the line through the two nearest known points meets `available`, or half-way
    to what is known to be too much if that line says nothing. The result is a multiple of 8 from
    8 photos on, exact to 8, or to 3% of it; below 8 it is exact.

    Args:
        need: gives the memory a batch needs, in bytes; infinity if only known to be too much.
        available: bytes.
        first: batch to begin with.
        most: no larger one is tried.

    Returns:
        The largest batch seen to fit (0: none does) and the smallest seen not to (`most` + 1: there
        is none).
    """
    seen = {0: 0.0}
    fits, fails = 0, most + 1
    batch = min(first, most)
    while True:
        seen[batch] = need(batch)
        if seen[batch] <= available:
            fits = batch
        else:
            fails = batch
        if fails - fits <= _granularity(fits):
            return fits, fails
        batch = _estimate(seen, available, fails)
        if batch >= fails:
            # Nothing is known to be too much: all there is. Else the line leads past what was seen
            # to be too much, as when need() is infinite: halve.
            batch = most if fails > most else (fits + fails) // 2
        if batch < most:
            batch -= batch % _granularity(batch)
        batch = min(max(batch, fits + _granularity(fits)), fails - 1)


def _granularity(batch: int) -> int:
    """How exactly a batch of about this size is wanted."""
    return 1 if batch < _STEP else max(_STEP, 2 ** (batch.bit_length() - 6))


def _estimate(seen: dict[int, float], available: float, fails: int) -> int:
    """Where a line through the two known points nearest to `available` meets it; else `fails`."""
    finite = {batch: size for batch, size in seen.items() if size < float("inf")}
    (a, size_a), *rest = sorted(finite.items(), key=lambda item: abs(item[1] - available))
    if not rest:
        return fails
    b, size_b = rest[0]
    if size_a == size_b:  # the batch makes no difference
        return fails
    return int(a + (available - size_a) * (b - a) / (size_b - size_a))
