"""How speed changes with the number of replicas, precision, size of the photos, and batch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from flowers_tpu.benchmarks import compute, results, rounds
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import Options, numbers
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import devices
from flowers_tpu.system.errors import RequestError


def check(config: Config, options: Options) -> None:
    """Checks what is asked for before anything is measured.

    Args:
        config: resolved.
        options: with the sweeps.

    Raises:
        RequestError: a number of replicas does not divide the total, or the model cannot be built
            for a size.
    """
    if counts := numbers("replicas_sweep", options.replicas_sweep):
        replica_batches(config.batch_size_per_replica, counts, constant="in total")
    for size in numbers("image_size_sweep", options.image_size_sweep):
        try:
            check_backbone(config.backbone, image_size=size, alpha=config.alpha)
        except RequestError as error:
            raise RequestError(f"--image_size_sweep={options.image_size_sweep}: {error}") from error


def replicas_sweep(bench: Bench) -> list[Row]:
    """Training steps by the number of CPU replicas: with a batch for each, then one for all."""
    config, found = bench.config, []
    counts = numbers("replicas_sweep", bench.options.replicas_sweep)
    for constant in ("per replica", "in total"):
        batches = replica_batches(config.batch_size_per_replica, counts, constant=constant)
        sides = replica_sides(config, bench.data, batches)
        group = f"CPU replicas, batch constant {constant}"
        found += replica_rows(group, bench.rates(group, list(sides.values())), sides)
    return found


def precision_sweep(bench: Bench) -> list[Row]:
    """Training steps by precision."""
    precisions = bench.options.precisions
    sides = precision_sides(bench.config, bench.strategy, bench.data, precisions)
    rates = bench.rates("precision", sides)
    found = results.rows("precision", "images/s", rates)
    return found + results.ratios("precision", rates, precisions[0])


def image_size_sweep(bench: Bench) -> list[Row]:
    """Training steps by the size of the photos."""
    sizes = numbers("image_size_sweep", bench.options.image_size_sweep)
    sides = size_sides(bench.config, bench.strategy, bench.data, sizes)
    return cost_rows("image size", bench.rates("image size", sides), sides)


def batch_sweep(bench: Bench) -> list[Row]:
    """Training steps by the photos of a replica's batch."""
    batches = numbers("batch_sweep", bench.options.batch_sweep)
    sides = batch_sides(bench.config, bench.strategy, bench.data, batches)
    return cost_rows("batch per replica", bench.rates("batch per replica", sides), sides)


# By their flags.
SWEEPS: dict[str, Callable[[Bench], list[Row]]] = {
    function.__name__: function
    for function in (replicas_sweep, precision_sweep, image_size_sweep, batch_sweep)
}


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


def replica_sides(config: Config, data: recipe.Data, batches: Mapping[int, int]) -> dict[int, Side]:
    """A side for each number of CPU replicas, with so many photos for each of them."""
    found = {}
    for count, batch_size in batches.items():
        strategy = devices.choose_devices(replicas=count).strategy
        changed = dataclasses.replace(
            config, global_batch_size=batch_size * count, batch_size_per_replica=batch_size
        )
        found[count] = _side(changed, strategy, data, replicas(count))
    return found


def size_sides(config: Config, strategy, data: recipe.Data, sizes: Sequence[int]) -> list[Side]:
    """A side for each size of the photos that the model sees."""
    return [
        _side(dataclasses.replace(config, image_size=size), strategy, data, f"{size} px")
        for size in sizes
    ]


def batch_sides(config: Config, strategy, data: recipe.Data, batches: Sequence[int]) -> list[Side]:
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
    config: Config, strategy, data: recipe.Data, precisions: Sequence[str]
) -> list[Side]:
    """A side for each precision of the layers' arithmetic."""
    return [
        _side(dataclasses.replace(config, precision=name), strategy, data, name)
        for name in precisions
    ]


def replica_rows(
    group: str, rates: Mapping[str, Sequence[float]], sides: Mapping[int, Side]
) -> list[Row]:
    """Photos/s, steps/s per replica, and how efficient more replicas are than the fewest.

    Every replica takes part in every step, so each does as many steps/s as all of them do together.
    The replicas share the cores of one machine: without a loss photos/s would stay the same, and
    the efficiency, photos/s over those of the fewest replicas, would be 1.
    """
    found = results.rows(group, "images/s", rates)
    for side in sides.values():
        each = [rate / side.photos_per_step for rate in rates[side.name]]
        found.append(Row(group, side.name, "steps/s per replica", tuple(each)))
    fewest = rates[replicas(min(sides))]
    for side in list(sides.values())[1:]:
        each = rounds.per_round(lambda rate, base: rate / base, rates[side.name], fewest)
        found.append(Row(group, f"efficiency, {side.name}", "x", tuple(each)))
    return found


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


def _side(config: Config, strategy, data: recipe.Data, name: str) -> Side:
    work = compute.make_work(config, strategy, data)
    steps_per_call = compute.steps_per_call(work)
    return compute.train_side(work, name, "finetune", steps_per_call)
