"""How fast training is: its steps on data on the device, and the real loop."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from flowers_tpu.benchmarks import (
    compute,
    end_to_end,
    flops,
    inputs,
    keras_fit,
    results,
    torch_side,
)
from flowers_tpu.benchmarks.bench import Bench, leaving_out, say_ignored
from flowers_tpu.benchmarks.compute import Work
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.runs import feed, recipe

# By names --compare_to pairs the rows of benchmarks, so no measured figure is in one.
_FED = "train, fed by tf.data"
_FIT = "keras_fit, 1 step per call"
_FIT_EQUAL = "keras_fit, equal steps per call"
_CACHED = ", cache=pixels"


def step(bench: Bench) -> list[Row]:
    """Steps on data on the device: training, warm-up, forward; and other ways to do the same."""
    config, group = bench.config, "step, data on the device"
    _reset_device_memory()
    work = compute.make_work(config, bench.strategy, bench.data)
    per_call = compute.steps_per_call(work)
    sides = [
        compute.train_side(work, "train", "finetune", per_call),
        compute.train_side(work, "warm-up", "warmup", per_call),
        compute.forward_side(work, "forward", per_call),
        compute.eval_side(work, "evaluation", per_call),
        compute.predict_side(work, "prediction"),
    ]
    forward = "forward"
    if config.augment_on == "device":  # which is part of the warm-up then
        forward = "augmentation and forward"
        sides.append(compute.forward_side(work, forward, per_call, augmented=True))
    with contextlib.ExitStack() as stack:
        if "keras_fit" in bench.options.sides:
            # `fit` wants its resident batch from tf.data; so does this side, to be like it.
            fed = compute.train_side(
                work, _FED, "finetune", per_call, lambda: feed.iterate(work.batches)
            )
            sides += [fed, *_fit_sides(work, per_call, work.batches)]
        if "torch" in bench.options.sides:
            say_ignored("torch", config, torch_side.FOLLOWS)
            worker = stack.enter_context(
                torch_side.worker(bench.options.torch_python, config, work.plan.num_classes)
            )
            sides += torch_side.sides(worker, config.global_batch_size)
        rates = _rates(bench, group, sides)
    found = results.rows(group, "images/s", rates)
    found += _per_replica(group, rates, sides[:2], bench.devices.replicas)
    found.append(Row(group, "steps per call", "steps", (per_call,)))
    for name in rates:
        if name.startswith("keras_fit"):
            found.append(results.ratio(group, rates, _FED, name))
        elif name.startswith("torch"):
            found.append(results.ratio(group, rates, "train", name))
    found.append(results.ratio(group, rates, "evaluation", "forward"))
    found.append(results.time_ratio(group, rates, "warm-up", forward))
    return found + _flops(bench, group, work, rates) + _device_memory(group)


def loop(bench: Bench) -> list[Row]:
    """The real loop end to end, and its parts alone."""
    config, strategy, data = bench.config, bench.strategy, bench.data
    work = compute.make_work(config, strategy, data)
    per_call = compute.steps_per_call(work)
    batches = inputs.endless_batches(config, strategy, data)
    sides = [
        end_to_end.side(work, "loop", batches),
        compute.train_side(work, "step alone", "finetune", per_call),
        _input_side(work, "input alone", batches),
    ]
    if config.cache == "none":
        sides += _cached_sides(work, data)
    in_epoch = min(per_call, work.plan.steps_per_epoch)
    if "keras_fit" in bench.options.sides:
        sides += _fit_sides(work, in_epoch, batches)
    if "notebook" in bench.options.sides:
        with leaving_out("loop, notebook"):
            sides.append(_notebook_side(work, data))
    rates = _rates(bench, "loop", sides)
    found = results.rows("loop", "images/s", rates)
    found += _per_replica("loop", rates, sides[:1], bench.devices.replicas)
    found.append(Row("loop", "steps per call", "steps", (in_epoch,)))
    for cache in ("", _CACHED):
        if f"loop{cache}" in rates:
            alone = [rates["step alone"], rates[f"input alone{cache}"]]
            efficiency = results.efficiency(
                rates[f"loop{cache}"], alone, parts_share=bench.devices.kind == "CPU"
            )
            found.append(Row("loop", f"efficiency{cache}", "x", tuple(efficiency)))
    for other in (_FIT, _FIT_EQUAL, "notebook"):
        if other in rates:
            ours = (name for name in rates if name.startswith("loop"))
            found += [results.ratio("loop", rates, name, other) for name in ours]
    return found


def _rates(bench: Bench, group: str, sides: Sequence[Side]) -> dict[str, list[float]]:
    rates = bench.rates(group, sides)
    if _FIT in rates:  # which is also that of equal steps, where the loop does one
        rates.setdefault(_FIT_EQUAL, rates[_FIT])
    return rates


def _fit_sides(work: Work, per_call: int, dataset: keras_fit.Dataset) -> list[Side]:
    """`fit` with one step per call, which is its default, and with as many as here."""
    config, found = work.config, []
    say_ignored("keras_fit", config, keras_fit.FOLLOWS)
    for name, steps in {_FIT: 1, _FIT_EQUAL: per_call}.items():
        if name == _FIT or steps > 1:
            model = keras_fit.build(
                config, work.strategy, work.plan.num_classes,
                augment=feed.augment_on_device(config), steps_per_execution=steps,
            )  # fmt: skip
            found.append(keras_fit.side(name, model, config.global_batch_size, dataset, steps))
    return found


def _input_side(work: Work, name: str, batches: feed.Batches) -> Side:
    photos = work.config.global_batch_size
    return Side(name, photos, lambda: inputs.reader(work.strategy, batches))


def _cached_sides(work: Work, data: recipe.Data) -> list[Side]:
    """The loop with the pixels in memory, and its input alone; nothing where they do not fit."""
    config = dataclasses.replace(work.config, cache="pixels")
    with leaving_out(f"loop{_CACHED}"):
        batches = inputs.endless_batches(config, work.strategy, data)
        return [
            end_to_end.side(work, f"loop{_CACHED}", batches),
            _input_side(work, f"input alone{_CACHED}", batches),
        ]
    return []


def _notebook_side(work: Work, data: recipe.Data) -> Side:
    config, split = work.config, data.splits["train"]
    dataset = inputs.notebook_dataset(config, split)
    model = keras_fit.build_notebook(config, work.strategy, work.plan.num_classes, split.photo_size)
    return keras_fit.side("notebook", model, config.global_batch_size, dataset)


def _per_replica(
    group: str, rates: Mapping[str, Sequence[float]], sides: Sequence[Side], replicas: int
) -> list[Row]:
    """Every replica takes part in every step; of a step's photos it has its share."""
    found = []
    for side in sides:
        images = rates[side.name]
        for unit, divisor in (
            ("images/s per replica", replicas),
            ("steps/s", side.photos_per_step),
            ("steps/s per replica", side.photos_per_step),
        ):
            found.append(Row(group, side.name, unit, tuple(rate / divisor for rate in images)))
    return found


def _flops(bench: Bench, group: str, work: Work, rates: Mapping[str, Sequence[float]]) -> list[Row]:
    """FLOPs of a photo, FLOP/s of all replicas, and the part of the devices' peak that this is.

    They are the network's: what augmentation on the device takes is not counted.
    """
    one = compute.of_one_replica(work, bench.data)
    each = {"train": compute.train_flops(one) / 1e9, "forward": compute.forward_flops(one) / 1e9}
    found = results.rows(group, "GFLOP per image", {name: [value] for name, value in each.items()})
    achieved = {name: [rate * value for rate in rates[name]] for name, value in each.items()}
    found += results.rows(group, "GFLOP/s", achieved)
    if peak := flops.peak(bench.devices.kind, bench.options.accelerator):
        whole = peak * bench.devices.replicas / 1e9
        parts_of_it = {name: [v / whole for v in values] for name, values in achieved.items()}
        found += results.rows(group, "of peak (MFU)", parts_of_it)
    return found


def _reset_device_memory() -> None:
    """Makes peaks those of what follows, where the runtime can."""
    for name in _accelerators():
        with contextlib.suppress(ValueError, NotImplementedError, tf.errors.OpError):
            tf.config.experimental.reset_memory_stats(name)


def _device_memory(group: str) -> list[Row]:
    """The peak of each accelerator's memory, all sides together, where the runtime tells it."""
    found = []
    for name in _accelerators():
        with contextlib.suppress(ValueError, NotImplementedError, tf.errors.OpError):
            peak = tf.config.experimental.get_memory_info(name)["peak"]
            found.append(Row(group, f"peak memory of {name}", "MB", (peak / 1e6,)))
    return found


def _accelerators() -> list[str]:
    devices = tf.config.list_logical_devices()
    return [device.name for device in devices if device.device_type in ("GPU", "TPU")]
