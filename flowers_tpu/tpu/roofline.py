"""The roofline of a step: bounds that follow from what it computes and moves; pure arithmetic.

Williams, Waterman & Patterson, 2009, https://doi.org/10.1145/1498765.1498785. A step takes at least
the time of its arithmetic at the peak rate, of its memory traffic at the full bandwidth, and of its
gradients' way over the interconnect; how far from it a real one ends, only a TPU can tell. The
traffic is the compiler's count, which may include what stays on the chip: that is an estimate.
"""

import dataclasses

from flowers_tpu.system.tpu_slices import Slice


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The bounds of one step on one slice.

    Attributes:
        intensity: FLOPs per byte of memory traffic.
        ridge: intensity from which on the device's arithmetic limits, not its memory.
        compute_seconds: least time of the arithmetic.
        memory_seconds: least time of the memory traffic.
        all_reduce_seconds: least time of summing the gradients over the slice.
        seconds: least time of the step: the largest of the three, as they can overlap.
        limit: which of the three it is: `compute`, `memory` or `interconnect`.
        images_per_second: most of the whole slice.
        images_per_second_per_replica: most of one of its replicas.
        input_bytes_per_second: of the batches that must then reach the slice.
    """

    intensity: float
    ridge: float
    compute_seconds: float
    memory_seconds: float
    all_reduce_seconds: float
    seconds: float
    limit: str
    images_per_second: float
    images_per_second_per_replica: float
    input_bytes_per_second: float


def roofline(
    slice_: Slice,
    *,
    flops: float,
    bytes_accessed: float,
    all_reduce_bytes: float,
    batch_size: int,
    batch_bytes: float,
) -> Roofline:
    """Works out the bounds of a step.

    Args:
        slice_: what it runs on.
        flops: of one replica.
        bytes_accessed: of one replica, from and to its memory.
        all_reduce_bytes: size of what each replica has and all of them sum.
        batch_size: photos of one replica.
        batch_bytes: size of one replica's batch.
    """
    times = {
        "compute": flops / slice_.flops,
        "memory": bytes_accessed / slice_.hbm_bandwidth,
        "interconnect": all_reduce_seconds(slice_, all_reduce_bytes),
    }
    limit = max(times, key=times.__getitem__)
    seconds = times[limit]
    return Roofline(
        intensity=flops / bytes_accessed,
        ridge=slice_.flops / slice_.hbm_bandwidth,
        compute_seconds=times["compute"],
        memory_seconds=times["memory"],
        all_reduce_seconds=times["interconnect"],
        seconds=seconds,
        limit=limit,
        images_per_second=batch_size * slice_.replicas / seconds,
        images_per_second_per_replica=batch_size / seconds,
        input_bytes_per_second=batch_bytes * slice_.replicas / seconds,
    )


def all_reduce_seconds(slice_: Slice, size: float) -> float:
    """Returns the least time in which the chips of a slice can sum `size` bytes.

    Whatever the algorithm, a chip sends at least 2 (n - 1) / n of them (Patarasu & Yuan, 2009,
    https://doi.org/10.1016/j.jpdc.2008.09.002), here over all of its links at once; the sum over a
    chip's own replicas is left out.
    """
    chips = slice_.chips
    return 2 * (chips - 1) / chips * size / slice_.generation.interconnect
