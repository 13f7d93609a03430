"""Compiles the real steps of a run with the real TPU compiler, on a machine without a TPU.

    python scripts/tpu_check.py --flagfile=scripts/flagfiles/notebook_vgg16.flags --topology=v3:2x2

Tells of both stages' training steps, evaluation and prediction whether they compile, what memory
they need, and how fast they can be at most; neither photos nor weights are needed. The compiler is
an extra: pip install -e '.[tpu-check]'. Exit code 0: all run; 1: a step does not.
"""

import json
import os

import tensorflow as tf

from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import files, stderr, terminal
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError, RunError, first_line
from flowers_tpu.system.tpu_slices import Slice, parse_slices
from flowers_tpu.tpu import attempt, compiler, lowering, report
from flowers_tpu.tpu.data_facts import DataFacts, InputRate, data_facts, input_rate
from flowers_tpu.tpu.lowering import Steps
from flowers_tpu.tpu.outcome import Checked


def check(
    given: Config,
    *,
    topology: str,
    find_batch: bool,
    output_dir: str,
    compile_minutes: float,
    host_images_per_second: float,
) -> None:
    """Compiles the steps of a run for TPUs and tells what came of it.

    The JSON is written after each slice, so what is done stays if a later one is stopped.

    Raises:
        RequestError: a flag is wrong, or the compiler is not installed.
        RunError: a step does not run on one of the slices.
    """
    _check_options(compile_minutes, host_images_per_second)
    slices = parse_slices(topology)
    compiler.check_installed()
    check_backbone(given.backbone, image_size=given.image_size, alpha=given.alpha)
    facts = data_facts(given)
    configs = {slice_: _resolve(given, facts, slice_) for slice_ in slices}
    path = _output_path(output_dir, given)
    with stderr.without_chatter():
        tf.config.list_logical_devices()  # starts TensorFlow
    if given.deterministic:
        tf.config.experimental.enable_op_determinism()
    rate = input_rate(given, facts, host_images_per_second)
    first = configs[slices[0]]
    _say_what_is_known(first, facts, rate)
    steps = Steps(first, facts)
    about = {
        # TensorFlow's package has more than one name; those of the compiler are just these.
        "versions": {**compiler.VERSIONS, "tensorflow": tf.__version__},
        "topologies": [slice_.topology for slice_ in slices],
    }
    done: list[Checked] = []
    for slice_, config in configs.items():
        checked = attempt.check_slice(steps, slice_, config, compile_minutes)
        if find_batch:
            checked = attempt.find_batch(steps, checked, given, compile_minutes)
        done.append(checked)
        terminal.say("\n".join(["", *report.table(checked, rate), ""]))
        files.write_atomically(path, report.as_json(done, rate, about))
    terminal.say(f"{report.NOTE}\nThe same as JSON: {path}")
    tried = [outcome for checked in done for outcome in checked.outcomes]
    if bad := [outcome for outcome in tried if outcome.problem]:
        worst = "; ".join(f"{o.slice_.topology} {o.step.name}: {o.problem.reason}" for o in bad)
        raise RunError(f"{len(bad)} of {len(tried)} programs do not run on a TPU ({worst})")


def _check_options(compile_minutes: float, host_images_per_second: float) -> None:
    if not compile_minutes > 0:
        raise RequestError(f"--compile_minutes={compile_minutes:g}: must be above 0")
    if not host_images_per_second >= 0:
        raise RequestError(
            f"--host_images_per_second={host_images_per_second:g}: must not be negative"
        )


def _resolve(given: Config, facts: DataFacts, slice_: Slice) -> Config:
    """The configuration as it would be on a slice.

    Raises:
        RequestError: the replicas do not divide the global batch, or it is more than all photos.
    """
    devices = Devices(tf.distribute.get_strategy(), "TPU", slice_.replicas)
    try:
        config = recipe.resolve(given, devices)
        lowering.make_plan(config, facts)
    except RequestError as error:
        raise RequestError(f"{slice_.topology}: {error}") from error
    return config


def _say_what_is_known(config: Config, facts: DataFacts, rate: InputRate) -> None:
    terminal.say(
        f"{config.backbone}, {config.image_size} px, {config.precision}, "
        f"{facts.num_classes} classes"
    )
    if facts.assumed:
        terminal.say(f"{facts.training_photos:,} training photos are assumed: {facts.assumed}")
    delivered = f"{rate.images_per_second:,.0f} photos/s a host, " if rate.images_per_second else ""
    terminal.say(f"input: {delivered}{rate.origin}")


def _output_path(folder: str, given: Config) -> str:
    """Where the JSON goes; makes the folder. What is there must be of an earlier check."""
    path = files.join(folder, f"{os.path.basename(os.path.normpath(given.run_dir))}.json")
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise RequestError(
            f"--output_dir={folder}: cannot be made ({first_line(error)})"
        ) from error
    if tf.io.gfile.exists(path):
        try:
            ours = json.loads(files.read_text(path)).get("made_by") == report.MADE_BY
        except (ValueError, AttributeError):
            ours = False
        if not ours:
            raise RequestError(
                f"--output_dir={folder}: {path} is there and not this script's; name another folder"
            )
    return path
