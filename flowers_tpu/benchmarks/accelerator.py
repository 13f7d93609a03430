"""What a GPU or TPU does with this program, in parts that each stand alone: `--accelerator`.

For whoever has such a device: docs/gpu.md. A part that fails is left out, and says why.
"""

import functools
import tempfile
import time

import numpy as np
import tensorflow as tf

from flowers_tpu.benchmarks import compute, results, training_measures
from flowers_tpu.benchmarks.bench import Bench, Measure, leave_out
from flowers_tpu.benchmarks.results import Row
from flowers_tpu.benchmarks.work import make_work
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError, first_line
from flowers_tpu.system.facts import Facts
from flowers_tpu.training import metrics, multistep
from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.state import TrainState

NETWORKS = ("mobilenet_v2", "resnet50", "efficientnet_b0")
_STEPS = 6  # of the parts that compare numbers; half of them before a resume
# Of losses on device and CPU, relative: products may be of 10 bits there (TensorFloat-32).
CPU_BOUND = 0.01


def parts() -> list[Measure]:
    """Returns what is measured, in order: the last part makes everything after it deterministic."""
    named: dict[str, Measure] = {
        **{name: functools.partial(network, name=name) for name in NETWORKS},
        **{"input": input_limit, "beside the CPU": same_as_cpu, "resume": resume},
    }
    return [_or_left_out(name, part) for name, part in named.items()]


def network(bench: Bench, name: str) -> list[Row]:
    """Training steps of a network, with and without XLA, in two precisions, and by `fit`."""
    sides, compiling = [], {}
    for precision in precisions(bench.recipe.facts):
        recipe = bench.recipe.changed(backbone=name, precision=precision)
        for jit in ("off", "on") if recipe.facts.kind != "TPU" else ("auto",):
            title = precision if jit == "auto" else f"{precision}, jit {jit}"
            work = make_work(recipe.changed(jit=jit), bench.data)
            begin = time.perf_counter()
            compute.train_side(work, title, "finetune", 1).open()(1)
            compiling[title] = [time.perf_counter() - begin]
            per_call = compute.steps_per_call(work)
            sides.append(compute.train_side(work, title, "finetune", per_call))
        side = training_measures.fit_side(work, f"{precision}, keras_fit", per_call, work.batches)
        sides.append(side)
    rates = bench.rates(name, sides)
    found = results.rows(name, "images/s", rates) + results.rows(name, "s to compile", compiling)
    for precision in precisions(bench.recipe.facts):
        ours = [title for title in rates if title.startswith(precision)]
        found += results.ratios(name, {title: rates[title] for title in ours}, ours[-1])
    return found


def precisions(facts: Facts) -> tuple[str, str]:
    """Returns the two precisions of a device: float32, and the one that it is fast in."""
    return "float32", facts.arithmetic if facts.arithmetic != "float32" else "bfloat16"


def input_limit(bench: Bench) -> list[Row]:
    """The real loop and its parts: with an efficiency near 1 it is as fast as the slower of them.

    If `input alone` is below `step alone`, photos limit it.
    """
    recipe = bench.recipe.changed(backbone=NETWORKS[0])
    return training_measures.loop(Bench(recipe, bench.options, bench.data))


def same_as_cpu(bench: Bench) -> list[Row]:
    """How far the losses of the first steps in float32 are from those of the CPU, relative."""
    flags = {"backbone": NETWORKS[0], "precision": "float32", "batch_norm": "frozen"}
    flags |= {"weights": "none", "optimizer": "sgd", "weight_decay": 0.0}
    recipe = bench.recipe.changed(**flags, augment_on="device")
    # With as many photos in a step; without a scope, TensorFlow would take the device again.
    on_cpu = Devices(tf.distribute.OneDeviceStrategy("CPU:0"), Facts("CPU"))
    there, here = (
        _losses(Recipe.on(devices, recipe.spec.changed(jit="off"), recipe.resolved), bench.data)
        for devices in (recipe.devices, on_cpu)
    )
    far = float(np.max(np.abs(there - here) / np.abs(here)))
    group = f"the first {_STEPS} steps, beside those of the CPU"
    return [Row(group, f"losses apart (to be below {CPU_BOUND})", "relative", (far,))]


def resume(bench: Bench) -> list[Row]:
    """In how many numbers a run that was saved and resumed differs from one that was not.

    With deterministic kernels, which all later work of this process has too.
    """
    tf.config.experimental.enable_op_determinism()
    recipe = bench.recipe.changed(backbone=NETWORKS[0], weights="none", deterministic=True)
    whole, _ = _trained(recipe, bench.data)
    with tempfile.TemporaryDirectory() as folder:
        half, _ = _trained(recipe, bench.data, end=_STEPS // 2)
        Checkpoints(folder, half).save_latest()
        resumed, _ = _trained(recipe, bench.data, begin=_STEPS // 2, folder=folder)
    differing = sum(
        int(np.sum(np.atleast_1d(a.numpy() != b.numpy())))
        for a, b in zip(_numbers(whole), _numbers(resumed), strict=True)
    )
    group = f"{_STEPS} steps, saved and resumed after {_STEPS // 2}"
    return [Row(group, "numbers that differ (to be 0)", "numbers", (differing,))]


def _or_left_out(name: str, part: Measure) -> Measure:
    """What a device cannot do is said, and the parts after it are measured."""

    def measure(bench: Bench) -> list[Row]:
        try:
            return part(bench)
        except (tf.errors.OpError, RequestError, MemoryError) as error:
            leave_out(name, first_line(error))
            return []

    return measure


def _trained(
    recipe: Recipe, data: Data, begin: int = 0, end: int = _STEPS, folder: str = ""
) -> tuple[TrainState, np.ndarray]:
    """Trains some of the first steps; from what is saved in a folder, if they are not the first.

    Returns:
        The state, and the mean loss of each step.
    """
    plan, feed = recipe.plan(data), Feed(recipe, data.splits)
    state = recipe.state(plan)
    if begin:
        Checkpoints(folder, state).restore_latest()
    steps = multistep.compile_train_steps(
        recipe.strategy, state, "finetune", plan.objective, feed.prepare
    )
    found = steps(iter(feed.train_batches(begin, _STEPS)), tf.constant(end - begin))
    return state, found.outcomes.numpy()[..., metrics.COLUMNS.index("loss")].mean(axis=1)


def _losses(recipe: Recipe, data: Data) -> np.ndarray:
    return _trained(recipe, data)[1]


def _numbers(state: TrainState) -> list[tf.Variable]:
    return [*state.classifier.model.variables, *state.finetune_optimizer.variables()]
