"""How speed changes with the number of replicas, precision, size of the photos, and batch."""

import dataclasses
from collections.abc import Mapping, Sequence

from flowers_tpu import distribution, parts
from flowers_tpu.benchmarks import compute, results
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError


def replica_batches(batch_size: int, counts: Sequence[int], *, constant: str) -> dict[int, int]:
    """Returns the photos per replica by the number of replicas.

    Args:
        batch_size: photos per replica where that is constant.
        counts: numbers of replicas.
        constant: `per replica`; or `in total`: as many as the most replicas have then.

    Raises:
        RequestError: a number of replicas does not divide the total.
    """
    if constant == "per replica":
        return dict.fromkeys(counts, batch_size)
    total = batch_size * max(counts)
    for count in counts:
        if total % count:
            raise RequestError(
                f"--replicas_sweep: {count} replicas do not divide the global batch of {total} "
                f"(the {batch_size} photos of each of {max(counts)} replicas)"
            )
    return {count: total // count for count in counts}


def replica_sides(config: Config, data: parts.Data, batches: Mapping[int, int]) -> dict[int, Side]:
    """A side for each number of CPU replicas, with so many photos for each of them."""
    found = {}
    for count, batch_size in batches.items():
        strategy = distribution.choose_devices(replicas=count).strategy
        changed = dataclasses.replace(
            config, global_batch_size=batch_size * count, batch_size_per_replica=batch_size
        )
        found[count] = _side(changed, strategy, data, replicas(count))
    return found


def size_sides(config: Config, strategy, data: parts.Data, sizes: Sequence[int]) -> list[Side]:
    """A side for each size of the photos that the model sees."""
    return [
        _side(dataclasses.replace(config, image_size=size), strategy, data, f"{size} px")
        for size in sizes
    ]


def batch_sides(config: Config, strategy, data: parts.Data, batches: Sequence[int]) -> list[Side]:
    """A side for each number of photos per replica."""
    count = strategy.num_replicas_in_sync
    return [
        _side(
            dataclasses.replace(config, global_batch_size=b * count, batch_size_per_replica=b),
            strategy, data, f"batch {b}",
        )
        for b in batches
    ]  # fmt: skip


def precision_sides(
    config: Config, strategy, data: parts.Data, precisions: Sequence[str]
) -> list[Side]:
    """A side for each precision of the layers' arithmetic."""
    return [
        _side(dataclasses.replace(config, precision=name), strategy, data, name)
        for name in precisions
    ]


def replica_rows(
    group: str, rates: Mapping[str, Sequence[float]], sides: Mapping[int, Side]
) -> list[Row]:
    """Photos/s, steps/s per replica, and what is left of the speed of the fewest replicas.

    The replicas share the cores of one machine, so without any loss photos/s would stay the same.
    """
    found = results.rows(group, "images/s", rates)
    for count, side in sides.items():
        each = [rate / side.photos_per_step / count for rate in rates[side.name]]
        found.append(Row(group, side.name, "steps/s per replica", tuple(each)))
    base = replicas(min(sides))
    return found + results.ratios(group, rates, base)


def cost_rows(group: str, rates: Mapping[str, Sequence[float]], sides: Sequence[Side]) -> list[Row]:
    """Photos/s, steps/s, and how much more a photo costs than at the first one of the sweep."""
    found = results.rows(group, "images/s", rates)
    for side in sides:
        each = [rate / side.photos_per_step for rate in rates[side.name]]
        found.append(Row(group, side.name, "steps/s", tuple(each)))
    first = sides[0].name
    cost = {
        f"cost of a photo: {name}": [1 / rate for rate in series] for name, series in rates.items()
    }
    return found + results.ratios(group, cost, f"cost of a photo: {first}")


def replicas(count: int) -> str:
    """`2 replicas`."""
    return f"{count} replica{'s' if count > 1 else ''}"


def _side(config: Config, strategy, data: parts.Data, name: str) -> Side:
    work = compute.make_work(config, strategy, data)
    steps_per_call = compute.steps_per_call(work)
    return compute.train_side(work, name, "finetune", steps_per_call)
