"""What there is to measure, one function each: from a `Bench` to rows of results."""

from flowers_tpu.benchmarks import (
    accelerator,
    compute,
    inputs,
    memory,
    notebook,
    repeated,
    results,
    scaling,
    training_measures,
    two_workers,
)
from flowers_tpu.benchmarks.bench import Bench, Measure, leave_out, leaving_out
from flowers_tpu.benchmarks.options import BenchmarkOptions
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.work import make_work
from flowers_tpu.system import terminal


def input_(bench: Bench) -> list[Row]:
    """What each way of feeding a model delivers."""
    with_notebook = "notebook" in bench.options.sides
    sides, filling = inputs.sides(bench.recipe, bench.data, with_notebook=with_notebook)
    rates = bench.rates("input", sides)
    found = results.rows("input", "images/s", rates)
    if "notebook" in rates:
        found += results.ratios("input", rates, "notebook")
    without = {name: series for name, series in rates.items() if name != "notebook"}
    found += results.ratios("input", without, "decode")
    fill = {f"filling the cache: {name}": [seconds] for name, seconds in filling.items()}
    return found + results.rows("input", "s", fill)


def evaluation(bench: Bench) -> list[Row]:
    """Passes over a whole split: validation if there is one, else training."""
    split = bench.data.splits.get("val", bench.data.splits["train"])
    work = make_work(bench.recipe, bench.data)
    group = f"the whole split {split.name}, {split.size:,} photos"
    return results.rows(group, "images/s", bench.rates(group, compute.split_sides(work, split)))


def memory_(bench: Bench) -> list[Row]:
    """Peaks of fresh processes: one that trains, and ones that only read, many photos shuffled."""
    if bench.recipe.facts.kind == "TPU":
        leave_out("memory", "it starts a process, and this one has the TPU")
        return []
    works = ["ours"]
    if "notebook" in bench.options.sides:
        with leaving_out("memory, notebook"):
            notebook.check_memory(bench.data.splits["train"].photo_size)
            works.insert(0, "notebook")
    flags = bench.recipe.spec.flat()
    with (
        repeated.repeated(bench.data, bench.options.many_photos) as folder,
        terminal.bar(1 + len(works), "memory", "processes") as bar,
    ):
        training = memory.peak("training", flags)
        values = {"TensorFlow imported": training["import"], "training": training["peak"]}
        bar.update(1)
        flags |= {"data_dir": folder, "classes": "", "cache": "none"}
        for work in works:
            values[f"input, {work}"] = memory.peak(work, flags)["peak"]
            bar.update(1)
    group = "peak memory of a process"
    megabytes = {name: [value / 1e6] for name, value in values.items()}
    found = results.rows(group, "MB", megabytes)
    if len(works) > 1:
        found.append(results.ratio(group, megabytes, "input, ours", "input, notebook"))
    return found


def workers(bench: Bench) -> list[Row]:
    """A step of two local workers, and what of it the exchange of gradients would take alone."""
    if bench.recipe.facts.kind != "CPU":
        leave_out("workers", "two processes cannot share these devices")
        return []
    found = two_workers.seconds(bench.recipe.spec.flat())
    group = "two local workers"
    rows = results.rows(group, "ms", {n: [1e3 * s for s in found[n]] for n in found})
    step, exchange = found
    return [*rows, results.ratio(group, found, exchange, step)]


BY_NAME: dict[str, Measure] = {
    "step": training_measures.step,
    "input": input_,
    "loop": training_measures.loop,
    "evaluation": evaluation,
    "memory": memory_,
    "workers": workers,
}


def chosen(options: BenchmarkOptions) -> list[Measure]:
    """What is asked for, in order; sweeps come last."""
    if options.accelerator:
        return accelerator.parts()
    measures = [BY_NAME[name] for name in options.measures]
    return measures + [scaling.SWEEPS[flag] for flag in options.sweeps]
