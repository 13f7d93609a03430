"""How fast training is: its steps on data on the device, and the real loop."""

import contextlib
from collections.abc import Mapping, Sequence

import tensorflow as tf

from flowers_tpu.benchmarks import compute, inputs, keras_fit, results, torch_side
from flowers_tpu.benchmarks.bench import Bench, leaving_out, say_ignored
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.benchmarks.work import Work, make_work
from flowers_tpu.runs.feed import Batches
from flowers_tpu.runs.recipe import Data

# By names --compare_to pairs the rows of benchmarks, so no measured figure is in one.
_FED = "train, fed by tf.data"
_FIT = "keras_fit, 1 step per call"
_FIT_EQUAL = "keras_fit, equal steps per call"
_CACHED = ", cache=pixels"


def step(bench: Bench) -> list[Row]:
    """Steps on data on the device: training, warm-up, forward; and other ways to do the same."""
    recipe, options, group = bench.recipe, bench.options, "step, data on the device"
    _reset_device_memory()
    work = make_work(recipe, bench.data)
    per_call = compute.steps_per_call(work)
    sides = [
        compute.train_side(work, "train", "finetune", per_call),
        compute.train_side(work, "warm-up", "warmup", per_call),
        compute.forward_side(work, "forward", per_call),
        compute.eval_side(work, "evaluation", per_call),
        compute.predict_side(work, "prediction"),
    ]
    forward = "forward"
    if work.feed.prepare:  # which is part of the warm-up then
        forward = "augmentation and forward"
        sides.append(compute.forward_side(work, forward, per_call, augmented=True))
    with contextlib.ExitStack() as stack:
        if "keras_fit" in options.sides:
            # `fit` wants its resident batch from tf.data; so does this side, to be like it.
            fed = compute.train_side(work, _FED, "finetune", per_call, lambda: iter(work.batches))
            sides += [fed, *_fit_sides(work, per_call, work.batches)]
        if "torch" in options.sides:
            say_ignored("torch", recipe, torch_side.FOLLOWS)
            worker = stack.enter_context(
                torch_side.worker(options.torch_python, recipe, work.plan.num_classes)
            )
            sides += torch_side.sides(worker, work.plan.photos_per_step)
        rates = _rates(bench, group, sides)
    found = results.rows(group, "images/s", rates)
    found += _per_replica(group, rates, sides[:2], recipe.facts.replicas)
    found.append(Row(group, "steps per call", "steps", (per_call,)))
    for name in rates:
        if name.startswith("keras_fit"):
            found.append(results.ratio(group, rates, _FED, name))
        elif name.startswith("torch"):
            found.append(results.ratio(group, rates, "train", name))
    found.append(results.ratio(group, rates, "evaluation", "forward"))
    found.append(results.time_ratio(group, rates, "warm-up", forward))
    return found + _device_memory(group)


def loop(bench: Bench) -> list[Row]:
    """The real loop end to end, and its parts alone."""
    facts = bench.recipe.facts
    work = make_work(bench.recipe, bench.data)
    per_call = compute.steps_per_call(work)
    batches = inputs.endless_batches(work.recipe, bench.data)
    sides = [
        compute.loop_side(work, "loop", batches),
        compute.train_side(work, "step alone", "finetune", per_call),
        _input_side(work, "input alone", batches),
    ]
    if bench.recipe.spec.data.cache == "none":
        sides += _cached_sides(work, bench.data)
    in_epoch = min(per_call, work.plan.steps_per_epoch)
    if "keras_fit" in bench.options.sides:
        sides += _fit_sides(work, in_epoch, batches)
    if "notebook" in bench.options.sides:
        with leaving_out("loop, notebook"):
            sides.append(_notebook_side(work))
    rates = _rates(bench, "loop", sides)
    found = results.rows("loop", "images/s", rates)
    found += _per_replica("loop", rates, sides[:1], facts.replicas)
    found.append(Row("loop", "steps per call", "steps", (in_epoch,)))
    for cache in ("", _CACHED):
        if f"loop{cache}" in rates:
            alone = [rates["step alone"], rates[f"input alone{cache}"]]
            efficiency = results.efficiency(
                rates[f"loop{cache}"], alone, parts_share=facts.kind == "CPU"
            )
            found.append(Row("loop", f"efficiency{cache}", "x", tuple(efficiency)))
    for other in (_FIT, _FIT_EQUAL, "notebook"):
        if other in rates:
            ours = (name for name in rates if name.startswith("loop"))
            found += [results.ratio("loop", rates, name, other) for name in ours]
    return found


def _rates(bench: Bench, group: str, sides: Sequence[Side]) -> dict[str, list[float]]:
    rates = bench.rates(group, sides)
    if _FIT in rates:  # which is also that of equal steps, if the loop does one
        rates.setdefault(_FIT_EQUAL, rates[_FIT])
    return rates


def _fit_sides(work: Work, per_call: int, batches: Batches) -> list[Side]:
    """`fit` with one step per call, which is its default, and with as many as here."""
    say_ignored("keras_fit", work.recipe, keras_fit.FOLLOWS)
    found = []
    for name, steps in {_FIT: 1, _FIT_EQUAL: per_call}.items():
        if name == _FIT or steps > 1:
            found.append(fit_side(work, name, steps, batches))
    return found


def fit_side(work: Work, name: str, steps: int, batches: Batches) -> Side:
    """`fit` of a run's model on batches, with so many steps a call."""
    model = keras_fit.build(
        *(work.recipe, work.plan.num_classes),
        augment=work.feed.augment_on_device,
        steps_per_execution=steps,
    )
    return keras_fit.side(name, model, work.plan.photos_per_step, batches, steps)


def _input_side(work: Work, name: str, batches: Batches) -> Side:
    strategy = work.recipe.strategy
    return Side(name, work.plan.photos_per_step, lambda: inputs.reader(strategy, batches))


def _cached_sides(work: Work, data: Data) -> list[Side]:
    """The loop with the pixels in memory, and its input alone; nothing if they do not fit."""
    with leaving_out(f"loop{_CACHED}"):
        batches = inputs.endless_batches(work.recipe.changed(cache="pixels"), data)
        return [
            compute.loop_side(work, f"loop{_CACHED}", batches),
            _input_side(work, f"input alone{_CACHED}", batches),
        ]
    return []


def _notebook_side(work: Work) -> Side:
    photos = work.plan.photos_per_step
    dataset = inputs.notebook_dataset(work.feed.splits["train"], photos)
    model = keras_fit.build_notebook(work.recipe, work.plan.num_classes)
    return keras_fit.side("notebook", model, photos, dataset)


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


def _reset_device_memory() -> None:
    """Makes peaks those of what follows, if the runtime can."""
    for name in _accelerators():
        with contextlib.suppress(ValueError, NotImplementedError, tf.errors.OpError):
            tf.config.experimental.reset_memory_stats(name)


def _device_memory(group: str) -> list[Row]:
    """The peak of each accelerator's memory, all sides together, if the runtime gives it."""
    found = []
    for name in _accelerators():
        with contextlib.suppress(ValueError, NotImplementedError, tf.errors.OpError):
            peak = tf.config.experimental.get_memory_info(name)["peak"]
            found.append(Row(group, f"peak memory of {name}", "MB", (peak / 1e6,)))
    return found


def _accelerators() -> list[str]:
    devices = tf.config.list_logical_devices()
    return [device.name for device in devices if device.device_type in ("GPU", "TPU")]
