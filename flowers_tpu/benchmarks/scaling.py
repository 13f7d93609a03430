"""How speed changes with the number of replicas, precision, size of the photos, and batch."""

from collections.abc import Callable, Mapping, Sequence

from flowers_tpu.benchmarks import compute, results
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.benchmarks.work import make_work
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.system.errors import RequestError


def check(recipe: Recipe, options: BenchmarkOptions) -> None:
    """Checks what is asked for before anything is measured.

    Args:
        recipe: of the run that is measured.
        options: with the sweeps.

    Raises:
        RequestError: a number of replicas does not divide the total, or the model cannot be built
            for a size.
    """
    if counts := options.numbers("replicas_sweep"):
        replica_batches(recipe.photos_per_replica, counts, constant="in total")
    model = recipe.spec.model
    for size in options.numbers("image_size_sweep"):
        try:
            check_backbone(model.backbone, image_size=size, alpha=model.alpha)
        except RequestError as error:
            raise RequestError(f"--image_size_sweep={options.image_size_sweep}: {error}") from error


def replicas_sweep(bench: Bench) -> list[Row]:
    """Training steps by the number of CPU replicas: with a batch for each, then one for all."""
    counts, found = bench.options.numbers("replicas_sweep"), []
    for constant in ("per replica", "in total"):
        batches = replica_batches(bench.recipe.photos_per_replica, counts, constant=constant)
        sides = replica_sides(bench.recipe, bench.data, batches)
        group = f"CPU replicas, batch constant {constant}"
        found += replica_rows(group, bench.rates(group, sides), sides)
    return found


def precision_sweep(bench: Bench) -> list[Row]:
    """Training steps by precision."""
    names = bench.options.precisions
    sides = _sides(bench, {name: {"precision": name} for name in names})
    rates = bench.rates("precision", sides)
    found = results.rows("precision", "images/s", rates)
    return found + results.ratios("precision", rates, names[0])


def image_size_sweep(bench: Bench) -> list[Row]:
    """Training steps by the size of the photos."""
    sizes = bench.options.numbers("image_size_sweep")
    sides = _sides(bench, {f"{size} px": {"image_size": size} for size in sizes})
    return cost_rows("image size", bench.rates("image size", sides), sides)


def batch_sweep(bench: Bench) -> list[Row]:
    """Training steps by the photos of a replica's batch."""
    batches = bench.options.numbers("batch_sweep")
    sides = _sides(bench, {f"batch {batch}": _per_replica(batch) for batch in batches})
    return cost_rows("batch per replica", bench.rates("batch per replica", sides), sides)


# By their flags.
SWEEPS: dict[str, Callable[[Bench], list[Row]]] = {
    function.__name__: function
    for function in (replicas_sweep, precision_sweep, image_size_sweep, batch_sweep)
}


def replica_batches(batch_size: int, counts: Sequence[int], *, constant: str) -> dict[int, int]:
    """Returns the photos per replica by the number of replicas.

    Args:
        batch_size: photos per replica if that is constant.
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


def replica_sides(recipe: Recipe, data: Data, batches: Mapping[int, int]) -> list[Side]:
    """A side for each number of CPU replicas, with so many photos for each of them."""
    found = []
    for count, batch in batches.items():
        on_cpu = {"tpu": "", "require_tpu": False, "replicas": count}
        changed = Recipe.choose(recipe.spec.changed(**on_cpu, **_per_replica(batch)))
        found.append(_side(changed, data, f"{count} replica{'s' if count > 1 else ''}"))
    return found


def replica_rows(
    group: str, rates: Mapping[str, Sequence[float]], sides: Sequence[Side]
) -> list[Row]:
    """Photos/s, steps/s per replica, and how efficient more replicas are than the fewest.

    Every replica takes part in every step, so each does as many steps/s as all of them do together.
    The replicas share the cores of one machine: without a loss photos/s would stay the same, and
    the efficiency, photos/s over those of the fewest replicas, would be 1.
    """
    found = results.rows(group, "images/s", rates)
    found += results.rows(group, "steps/s per replica", results.steps(rates, sides))
    fewest, *more = sides
    for side in more:
        ratio = results.ratio(group, rates, side.name, fewest.name)
        found.append(Row(group, f"efficiency, {side.name}", "x", ratio.values))
    return found


def cost_rows(group: str, rates: Mapping[str, Sequence[float]], sides: Sequence[Side]) -> list[Row]:
    """Photos/s, steps/s, and how much more a photo costs than at the first one of the sweep."""
    found = results.rows(group, "images/s", rates)
    found += results.rows(group, "steps/s", results.steps(rates, sides))
    cost = {
        f"cost of a photo: {name}": [1 / rate for rate in series] for name, series in rates.items()
    }
    return found + results.ratios(group, cost, f"cost of a photo: {sides[0].name}")


def _per_replica(batch: int) -> dict[str, int]:
    """The flags of so many photos for each replica."""
    return {"batch_size_per_replica": batch, "global_batch_size": 0}


def _sides(bench: Bench, changes: Mapping[str, Mapping]) -> list[Side]:
    """A side for each name, with other values of some flags."""
    return [
        _side(bench.recipe.changed(**flags), bench.data, name) for name, flags in changes.items()
    ]


def _side(recipe: Recipe, data: Data, name: str) -> Side:
    work = make_work(recipe, data)
    return compute.train_side(work, name, "finetune", compute.steps_per_call(work))
