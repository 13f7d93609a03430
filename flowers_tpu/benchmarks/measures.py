"""What there is to measure, one function each: from a `Bench` to rows of results."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from flowers_tpu import feed, parts, progress
from flowers_tpu.benchmarks import (
    compute,
    end_to_end,
    evaluating,
    flops,
    inputs,
    keras_fit,
    memory,
    repeated,
    results,
    resume,
    rounds,
    saving,
    scaling,
    startup,
    torch_side,
)
from flowers_tpu.benchmarks.bench import Bench
from flowers_tpu.benchmarks.compute import Work
from flowers_tpu.benchmarks.options import numbers
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side

_FED = "train, fed by tf.data"


def step(bench: Bench) -> list[Row]:
    """Steps on data on the device: training, warm-up, forward; and other ways to do the same."""
    config, strategy, data = bench.config, bench.strategy, bench.data
    group = "step, data on the device"
    work = compute.make_work(config, strategy, data)
    per_call = compute.steps_per_call(work)
    sides = [
        compute.train_side(work, "train", "finetune", per_call),
        compute.train_side(work, "warm-up", "warmup", per_call),
        compute.forward_side(work, "forward", per_call),
        compute.eval_side(work, "evaluation", per_call),
        compute.predict_side(work, "prediction"),
    ]
    with contextlib.ExitStack() as stack:
        if "keras_fit" in bench.options.sides:
            sides += _fit_sides(work, per_call)
        if "torch" in bench.options.sides:
            worker = stack.enter_context(
                torch_side.worker(bench.options.torch_python, config, work.plan.num_classes)
            )
            sides += torch_side.sides(worker, config.global_batch_size)
        rates = bench.rates(group, sides)
    found = results.rows(group, "images/s", rates)
    found += _per_replica(group, rates, sides[:2], bench.devices.replicas)
    for name in rates:
        if name.startswith("keras_fit"):
            found.append(results.ratio(group, rates, _FED, name))
        elif name.startswith("torch"):
            found.append(results.ratio(group, rates, "train", name))
    found.append(results.ratio(group, rates, "evaluation", "forward"))
    found.append(results.time_ratio(group, rates, "warm-up", "forward"))
    return found + _flops(bench, group, work, rates) + _device_memory(group)


def input_(bench: Bench) -> list[Row]:
    """What each way of feeding a model delivers."""
    with_notebook = "notebook" in bench.options.sides
    sides, filling = inputs.sides(
        bench.config, bench.strategy, bench.data, with_notebook=with_notebook
    )
    rates = bench.rates("input", sides)
    found = results.rows("input", "images/s", rates)
    if with_notebook:
        found += results.ratios("input", rates, "notebook")
    without = {name: series for name, series in rates.items() if name != "notebook"}
    found += results.ratios("input", without, "decode")
    fill = {f"filling the cache: {name}": [seconds] for name, seconds in filling.items()}
    return found + results.rows("input", "s", fill)


def loop(bench: Bench) -> list[Row]:
    """The real loop end to end, and its parts alone."""
    config, strategy, data = bench.config, bench.strategy, bench.data
    work = compute.make_work(config, strategy, data)
    batches = inputs.endless_batches(config, strategy, data)
    sides = [
        end_to_end.side(work, "loop", batches),
        compute.train_side(work, "step alone", "finetune", compute.steps_per_call(work)),
        Side("input alone", config.global_batch_size, lambda: inputs.reader(strategy, batches)),
    ]
    pixels = dataclasses.replace(config, cache="pixels")
    if config.cache == "none":
        cached = inputs.endless_batches(pixels, strategy, data)
        sides.append(end_to_end.side(work, "loop, cache=pixels", cached))
    if "keras_fit" in bench.options.sides:
        model = keras_fit.build(
            config, strategy, work.plan.num_classes, augment=feed.augment_on_device(config)
        )
        sides.append(keras_fit.side("keras_fit", model, config.global_batch_size, batches))
    if "notebook" in bench.options.sides:
        sides.append(_notebook_side(work, data))
    rates = bench.rates("loop", sides)
    share = bench.devices.kind == "CPU"
    alone = [rates["step alone"], rates["input alone"]]
    efficiency = results.efficiency(rates["loop"], alone, parts_share=share)
    found = results.rows("loop", "images/s", rates)
    found += _per_replica("loop", rates, sides[:1], bench.devices.replicas)
    found.append(Row("loop", "efficiency", "x", tuple(efficiency)))
    for other in ("keras_fit", "notebook"):
        if other in rates:
            ours = (name for name in rates if name.startswith("loop"))
            found += [results.ratio("loop", rates, name, other) for name in ours]
    return found


def evaluation(bench: Bench) -> list[Row]:
    """Passes over a whole split: validation where there is one, else training."""
    split = bench.data.splits.get("val", bench.data.splits["train"])
    work = compute.make_work(bench.config, bench.strategy, bench.data)
    group = f"the whole split {split.name}, {split.size:,} photos"
    return results.rows(group, "images/s", bench.rates(group, evaluating.sides(work, split)))


def startup_(bench: Bench) -> list[Row]:
    """From the start of the process to the first step."""
    turns = bench.options.rounds
    with progress.bar(turns, "startup", "starts") as bar:
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
    works = ["notebook", "ours"] if "notebook" in bench.options.sides else ["ours"]
    with (
        repeated.repeated(bench.data, bench.options.many_photos) as folder,
        progress.bar(1 + len(works), "memory", "processes") as bar,
    ):
        training = memory.peak("training", bench.config)
        bar.update(1)
        config = dataclasses.replace(bench.config, data_dir=folder, classes="", cache="none")
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
    options = bench.options
    with repeated.repeated(bench.data, options.many_photos) as folder:
        config = dataclasses.replace(bench.config, data_dir=folder, classes="", cache="none")
        data = parts.load_data(config, ("train",))
        seconds = bench.seconds("resume", resume.turns(config, bench.strategy, data))
    later = rounds.per_round(
        lambda first, last: last - first, seconds["first step"], seconds["last step"]
    )
    group = f"time to the first batch, epoch of {options.many_photos:,} photos"
    return results.rows(group, "s", {**seconds, "last - first": later})


def sweeps(bench: Bench) -> list[Row]:
    """Training steps by replicas, precision, image size and batch, where asked for."""
    options, config, found = bench.options, bench.config, []
    if counts := numbers("replicas_sweep", options.replicas_sweep):
        for constant in ("per replica", "in total"):
            batches = scaling.replica_batches(
                config.batch_size_per_replica, counts, constant=constant
            )
            by_count = scaling.replica_sides(config, bench.data, batches)
            group = f"CPU replicas, batch constant {constant}"
            rates = bench.rates(group, list(by_count.values()))
            found += scaling.replica_rows(group, rates, by_count)
    if precisions := options.precisions:
        sides = scaling.precision_sides(config, bench.strategy, bench.data, precisions)
        rates = bench.rates("precision", sides)
        found += results.rows("precision", "images/s", rates)
        found += results.ratios("precision", rates, precisions[0])
    for group, flag, make_sides in (
        ("image size", "image_size_sweep", scaling.size_sides),
        ("batch per replica", "batch_sweep", scaling.batch_sides),
    ):
        if values := numbers(flag, getattr(options, flag)):
            sides = make_sides(config, bench.strategy, bench.data, values)
            found += scaling.cost_rows(group, bench.rates(group, sides), sides)
    return found


BY_NAME: dict[str, Callable[[Bench], list[Row]]] = {
    "step": step,
    "input": input_,
    "loop": loop,
    "evaluation": evaluation,
    "startup": startup_,
    "checkpoints": checkpoints,
    "memory": memory_,
    "resume": resume_,
}


def _fit_sides(work: Work, per_call: int) -> list[Side]:
    """`fit` on a resident batch, which it wants from tf.data; and this project's steps so fed."""
    config, strategy = work.config, work.strategy
    found = [
        compute.train_side(work, _FED, "finetune", per_call, lambda: feed.iterate(work.batches))
    ]
    for steps in dict.fromkeys((1, per_call)):
        model = keras_fit.build(
            config, strategy, work.plan.num_classes,
            augment=feed.augment_on_device(config), steps_per_execution=steps,
        )  # fmt: skip
        name = f"keras_fit, {steps} step{'s' if steps > 1 else ''} per call"
        found.append(keras_fit.side(name, model, config.global_batch_size, work.batches, steps))
    return found


def _notebook_side(work: Work, data: parts.Data) -> Side:
    split, config = data.splits["train"], work.config
    model = keras_fit.build_notebook(config, work.strategy, work.plan.num_classes, split.photo_size)
    dataset = inputs.notebook_dataset(config, split)
    return keras_fit.side("notebook", model, config.global_batch_size, dataset)


def _per_replica(
    group: str, rates: Mapping[str, Sequence[float]], sides: Sequence[Side], replicas: int
) -> list[Row]:
    found = []
    for side in sides:
        images = rates[side.name]
        for unit, divisor in (
            ("images/s per replica", replicas),
            ("steps/s", side.photos_per_step),
            ("steps/s per replica", side.photos_per_step * replicas),
        ):
            found.append(Row(group, side.name, unit, tuple(rate / divisor for rate in images)))
    return found


def _flops(bench: Bench, group: str, work: Work, rates: Mapping[str, Sequence[float]]) -> list[Row]:
    """FLOPs of a photo, FLOP/s of all replicas, and the part of the devices' peak that this is."""
    each = {"train": compute.train_flops(work) / 1e9, "forward": compute.forward_flops(work) / 1e9}
    found = results.rows(group, "GFLOP per image", {name: [value] for name, value in each.items()})
    achieved = {name: [rate * value for rate in rates[name]] for name, value in each.items()}
    found += results.rows(group, "GFLOP/s", achieved)
    if peak := flops.peak(bench.devices.kind, bench.options.accelerator):
        whole = peak * bench.devices.replicas / 1e9
        parts_of_it = {name: [v / whole for v in values] for name, values in achieved.items()}
        found += results.rows(group, "of peak (MFU)", parts_of_it)
    return found


def _device_memory(group: str) -> list[Row]:
    """The peak of each accelerator's memory, where the runtime tells it."""
    found = []
    for device in tf.config.list_logical_devices():
        with contextlib.suppress(ValueError, NotImplementedError, tf.errors.OpError):
            if device.device_type in ("GPU", "TPU"):
                peak = tf.config.experimental.get_memory_info(device.name)["peak"]
                found.append(Row(group, f"peak memory of {device.name}", "MB", (peak / 1e6,)))
    return found
