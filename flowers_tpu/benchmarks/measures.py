"""What there is to measure, one function each: from a `Bench` to rows of results."""

import dataclasses
import tempfile
from collections.abc import Callable

import tensorflow as tf

from flowers_tpu.benchmarks import (
    compute,
    evaluating,
    inputs,
    memory,
    notebook,
    results,
    resume,
    rounds,
    saving,
    scaling,
    startup,
    training_measures,
)
from flowers_tpu.benchmarks.bench import Bench, leave_out, leaving_out
from flowers_tpu.benchmarks.options import Options
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.data import records
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import files, terminal

Measure = Callable[[Bench], list[Row]]


def input_(bench: Bench) -> list[Row]:
    """What each way of feeding a model delivers."""
    sides, filling = inputs.sides(
        bench.config,
        bench.strategy,
        bench.data,
        with_notebook="notebook" in bench.options.sides,
    )
    rates = bench.rates("input", sides)
    found = results.rows("input", "images/s", rates)
    if "notebook" in rates:
        found += results.ratios("input", rates, "notebook")
    without = {name: series for name, series in rates.items() if name != "notebook"}
    found += results.ratios("input", without, "decode")
    fill = {f"filling the cache: {name}": [seconds] for name, seconds in filling.items()}
    return found + results.rows("input", "s", fill)


def evaluation(bench: Bench) -> list[Row]:
    """Passes over a whole split: validation where there is one, else training."""
    split = bench.data.splits.get("val", bench.data.splits["train"])
    work = compute.make_work(bench.config, bench.strategy, bench.data)
    group = f"the whole split {split.name}, {split.size:,} photos"
    return results.rows(group, "images/s", bench.rates(group, evaluating.sides(work, split)))


def startup_(bench: Bench) -> list[Row]:
    """From the start of the process to the first step."""
    folder = bench.data.folder
    missing = [s for s in records.SPLITS if not tf.io.gfile.isdir(files.join(folder, s))]
    if missing:
        leave_out("startup", f"scripts/train.py needs {' and '.join(missing)} too in {folder}")
        return []
    if not bench.can_start_processes("startup"):
        return []
    turns = bench.options.rounds
    with terminal.bar(turns, "startup", "starts") as bar:
        times = []
        for _ in range(turns):
            times.append(startup.seconds(bench.config))
            bar.update(1)
    parts_ = {name: [each[name] for each in times] for name in times[0]}
    return results.rows("time to the first step", "s", parts_)


def checkpoints(bench: Bench) -> list[Row]:
    """Saving, for which training stands still, and restoring."""
    work = compute.make_work(bench.config, bench.strategy, bench.data)
    with tempfile.TemporaryDirectory() as folder:
        seconds = bench.seconds("checkpoints", saving.turns(work.state, folder))
        size = saving.newest_size(folder)
    return [
        *results.rows("checkpoints", "s", seconds),
        Row("checkpoints", "size of all", "MB", (size / 1e6,)),
    ]


def memory_(bench: Bench) -> list[Row]:
    """Peaks of fresh processes: one that trains, and ones that only read, many photos shuffled."""
    if not bench.can_start_processes("memory"):
        return []
    works = []
    if "notebook" in bench.options.sides:
        with leaving_out("memory, notebook"):
            notebook.check_memory(bench.data.splits["train"].photo_size)
            works.append("notebook")
    works.append("ours")
    config = _with_large_data(bench)
    with terminal.bar(1 + len(works), "memory", "processes") as bar:
        training = memory.peak("training", bench.config)
        bar.update(1)
        peaks = {}
        for work in works:
            peaks[f"input, {work}"] = memory.peak(work, config)["peak"] / 1e6
            bar.update(1)
    group = "peak memory of a process"
    own = {"TensorFlow imported": training["import"] / 1e6, "training": training["peak"] / 1e6}
    values = {name: [megabytes] for name, megabytes in (own | peaks).items()}
    found = results.rows(group, "MB", values)
    if len(works) > 1:
        found.append(results.ratio(group, values, "input, ours", "input, notebook"))
    return found


def resume_(bench: Bench) -> list[Row]:
    """Time to the first batch at both ends of an epoch."""
    config = _with_large_data(bench)
    data = recipe.load_data(config, ("train",))
    seconds = bench.seconds("resume", resume.turns(config, bench.strategy, data))
    later = rounds.per_round(
        lambda first, last: last - first, seconds["first step"], seconds["last step"]
    )
    group = f"time to the first batch, epoch of {bench.options.many_photos:,} photos"
    return results.rows(group, "s", {**seconds, "last - first": later})


def chosen(options: Options) -> list[Measure]:
    """What is asked for, in order; sweeps come last."""
    measures = [BY_NAME[name] for name in options.measures]
    return measures + [scaling.SWEEPS[flag] for flag in options.sweeps]


BY_NAME: dict[str, Measure] = {
    "step": training_measures.step,
    "input": input_,
    "loop": training_measures.loop,
    "evaluation": evaluation,
    "startup": startup_,
    "checkpoints": checkpoints,
    "memory": memory_,
    "resume": resume_,
}


def _with_large_data(bench: Bench) -> Config:
    return dataclasses.replace(bench.config, data_dir=bench.large_data, classes="", cache="none")
