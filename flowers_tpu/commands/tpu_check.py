"""Compiles the real steps of a run with the real TPU compiler, on a machine without a TPU.

    python scripts/tpu_check.py --flagfile=scripts/flagfiles/notebook_vgg16.flags --topology=v3:2x2

Prints of both stages' training steps, evaluation and prediction whether they compile, what memory
they need, and how fast they can be at most; tpu_check.json in --output_dir has the same. Neither
photos nor weights are needed. The compiler is an extra: pip install -e '.[tpu-check]'. Exit code 0:
all run; 1: a step does not.
"""

import os

import tensorflow as tf

from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.system.facts import Facts
from flowers_tpu.system.tpu_slices import Slice, parse_slices
from flowers_tpu.tpu import attempt, compiler, report
from flowers_tpu.tpu.data_facts import DataFacts, InputRate, data_facts, input_rate
from flowers_tpu.tpu.lowering import Steps, plan_without_data
from flowers_tpu.tpu.options import TpuCheckOptions
from flowers_tpu.tpu.outcome import Checked


def tpu_check(given: Spec, options: TpuCheckOptions) -> None:
    """Compiles the steps of a run for TPUs, and prints and writes what came of it.

    The report is written after each slice, so what is done stays if a later one is stopped.

    Args:
        given: of the run.
        options: what to compile for, and where the report goes.

    Raises:
        RequestError: a flag is wrong, or the compiler is not installed.
        RunError: a step does not run on one of the slices.
    """
    slices = parse_slices(options.topology)
    if options.find_batch and given.training.accumulate_steps > 1:
        raise RequestError(
            "--find_batch and --accumulate_steps: the batch that fits is searched without parts; "
            "leave one of them out"
        )
    compiler.check_installed()
    check_backbone(given.model.backbone, image_size=given.data.image_size, alpha=given.model.alpha)
    output_dir = options.output_dir or _default_output_dir(given)
    folders.check_usable(output_dir, "output_dir", folders.TPU_CHECK)
    alone = Recipe.on(one_cpu_replica(Facts("TPU")), given.changed(global_batch_size=0))
    facts = data_facts(alone)
    recipes = {slice_: _on_slice(given, facts, slice_) for slice_ in slices}
    folders.make(output_dir, "output_dir")
    if given.devices.deterministic:
        tf.config.experimental.enable_op_determinism()
    rate = input_rate(alone, facts, options.host_images_per_second)
    first = recipes[slices[0]]
    _say_what_is_known(first, facts, rate)

    steps = Steps(first, facts)
    about = {
        # TensorFlow's package has more than one name; those of the compiler are just these.
        "versions": {**compiler.VERSIONS, "tensorflow": tf.__version__},
        "topologies": [slice_.topology for slice_ in slices],
    }
    path = files.join(output_dir, folders.TPU_CHECK.marker)
    done: list[Checked] = []
    for slice_, recipe in recipes.items():
        checked = attempt.check_slice(steps, slice_, recipe, options.compile_minutes)
        if options.find_batch:
            checked = attempt.find_batch(steps, checked, options.compile_minutes)
        done.append(checked)
        terminal.say("\n".join(["", *report.table(checked, rate), ""]))
        files.write_atomically(path, report.as_json(done, rate, about))
    terminal.say(f"{report.NOTE}\nThe same as JSON: {path}")
    tried = [outcome for checked in done for outcome in checked.outcomes]
    if bad := [(outcome, outcome.problem) for outcome in tried if outcome.problem]:
        worst = "; ".join(f"{o.slice_.topology} {o.step.name}: {p.reason}" for o, p in bad)
        raise RunError(f"{len(bad)} of {len(tried)} programs do not run on a TPU ({worst})")


def _on_slice(given: Spec, facts: DataFacts, slice_: Slice) -> Recipe:
    """Returns the run as it would be on a slice.

    Raises:
        RequestError: the replicas do not divide the global batch, or it is more than all photos.
    """
    devices = one_cpu_replica(Facts("TPU", slice_.replicas, slice_.hosts))
    try:
        recipe = Recipe.on(devices, given)
        plan_without_data(recipe, facts)
    except RequestError as error:
        raise RequestError(f"{slice_.topology}: {error}") from error
    return recipe


def _say_what_is_known(recipe: Recipe, facts: DataFacts, rate: InputRate) -> None:
    spec = recipe.spec
    terminal.say(
        f"{spec.model.backbone}, {spec.data.image_size} px, {recipe.resolved.arithmetic}, "
        f"{facts.num_classes} classes"
    )
    if facts.assumed:
        terminal.say(f"{facts.training_photos:,} training photos are assumed: {facts.assumed}")
    delivered = f"{rate.images_per_second:,.0f} photos/s a host, " if rate.images_per_second else ""
    terminal.say(f"input: {delivered}{rate.origin}")


def _default_output_dir(given: Spec) -> str:
    name = os.path.basename(os.path.normpath(given.run.run_dir))
    return os.path.join("runs", f"tpu-check-{name}")
