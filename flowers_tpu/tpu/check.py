"""`scripts/tpu_check.py` from top to bottom: lower the steps, compile them, report."""

import dataclasses
import json
import os
import time
from importlib import metadata

import tensorflow as tf

from flowers_tpu import files, parts, progress, quiet
from flowers_tpu.config import Config
from flowers_tpu.distribution import Devices
from flowers_tpu.errors import RequestError, RunError
from flowers_tpu.generations import GIB, Slice, parse_slices
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.tpu import compiler, diagnosis, lowering, report
from flowers_tpu.tpu.batch_search import largest_batch
from flowers_tpu.tpu.compiler import CompileError, CompileTimeoutError
from flowers_tpu.tpu.data_facts import DataFacts, data_facts, input_images_per_second
from flowers_tpu.tpu.diagnosis import Problem, StepError
from flowers_tpu.tpu.lowering import Lowered, ReplicaStep
from flowers_tpu.tpu.outcome import Outcome


class Steps:
    """The steps of a run, lowered when asked for; the model is built once."""

    def __init__(self, config: Config, facts: DataFacts):
        self.config, self.facts = config, facts
        self.state, plan = lowering.make_state(config, facts)
        self.steps = lowering.replica_steps(config, self.state, plan)
        self._lowered: dict[tuple[str, int], Lowered] = {}

    def lower(self, step: ReplicaStep, batch_size: int) -> Lowered:
        """Returns a step for so many photos on a replica; raises StepError."""
        key = step.name, batch_size
        if key not in self._lowered:
            spec = lowering.batch_spec(
                self.config,
                batch_size,
                training=step.training,
                photo_size=self.facts.photo_size,
            )
            variables = lowering.state_variables(self.state)
            self._lowered[key] = lowering.lower(step, spec, variables)
        return self._lowered[key]


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

    Raises:
        RequestError: a flag is wrong, or the compiler is not installed.
        RunError: a step does not run on one of the slices.
    """
    slices = parse_slices(topology)
    compiler.check_installed()
    check_backbone(given.backbone, image_size=given.image_size, alpha=given.alpha)
    path = _output_path(output_dir, given)
    configs = {slice_: _resolve(given, slice_) for slice_ in slices}
    first = configs[slices[0]]
    with quiet.without_chatter():
        tf.config.list_logical_devices()  # starts TensorFlow
    facts = data_facts(first)
    progress.say(
        f"{first.backbone}, {first.image_size} px, {first.precision}, {facts.num_classes} classes"
        f"{'' if facts.are_there else f' (no data at --data_dir={first.data_dir}: assumed)'}"
    )
    if facts.are_there and not host_images_per_second:
        host_images_per_second = _measure_input(given)
    steps = Steps(first, facts)
    outcomes, batches = [], {}
    for slice_, config in configs.items():
        batch = config.batch_size_per_replica
        found = [_try(steps, step, batch, slice_, compile_minutes) for step in steps.steps]
        if find_batch:
            batches[slice_], found = _search(steps, found, slice_, compile_minutes)
        progress.say()
        for line in report.table(found, host_images_per_second):
            progress.say(line)
        progress.say()
        outcomes += found
    about = {"versions": _versions(), "config": dataclasses.asdict(first)}
    if find_batch:
        about["largest_batch_size_per_replica"] = {s.topology: b for s, b in batches.items()}
    tf.io.gfile.makedirs(output_dir)
    files.write_atomically(path, report.as_json(outcomes, about))
    progress.say(f"{report.NOTE}\nThe same as JSON: {path}")
    if bad := [outcome for outcome in outcomes if outcome.problem]:
        worst = "; ".join(f"{o.slice_.topology} {o.step}: {o.problem.reason}" for o in bad)
        raise RunError(f"{len(bad)} of {len(outcomes)} programs do not run on a TPU ({worst})")


def _try(
    steps: Steps, step: ReplicaStep, batch_size: int, slice_: Slice, minutes: float
) -> Outcome:
    """Lowers and compiles a step; says how it went."""
    label = f"{slice_.topology} {step.name}, {batch_size} photos"
    lowered = compiled = problem = None
    begin = time.monotonic()
    with progress.bar(1, label, "program") as bar:

        def show_time():
            bar.set_postfix(seconds=f"{time.monotonic() - begin:.0f}")
            bar.update(0)

        try:
            lowered = steps.lower(step, batch_size)
            compiled = compiler.compile_for(
                slice_, lowered.module, seconds=minutes * 60, on_wait=show_time
            )
        except StepError as error:
            problem = error.problem
        except CompileError as error:
            problem = diagnosis.of_compilation(str(error), lowered.source_of)
        except CompileTimeoutError:
            problem = Problem(
                "timeout", f"not compiled within --compile_minutes={minutes:g}", step.name
            )
    outcome = Outcome(slice_, step.name, lowered, compiled, problem)
    available = slice_.generation.available
    if compiled and outcome.needed > available:
        problem = diagnosis.too_large(outcome.needed, available)
        outcome = dataclasses.replace(outcome, problem=problem)
    gist = outcome.problem or f"{outcome.needed / GIB:.2f} of {available / GIB:.2f} GiB"
    progress.note(f"{label}: {gist} ({time.monotonic() - begin:.0f} s)")
    return outcome


def _search(
    steps: Steps, found: list[Outcome], slice_: Slice, minutes: float
) -> tuple[int, list[Outcome]]:
    """Searches the largest batch with which every step fits; returns it with its outcomes.

    The step that needs most is tried first, the others only where it fits.
    """
    if any(outcome.problem and outcome.problem.reason != "memory" for outcome in found):
        return 0, found
    begun = found[0].lowered.batch_size
    outcomes = {begun: found}
    order = sorted(range(len(found)), key=lambda index: -found[index].needed)

    def need(batch_size: int) -> float:
        if batch_size not in outcomes:
            tried = {}
            for index in order:
                tried[index] = _try(steps, steps.steps[index], batch_size, slice_, minutes)
                if tried[index].problem:
                    break
            outcomes[batch_size] = [tried[index] for index in sorted(tried)]
        return max(outcome.needed for outcome in outcomes[batch_size])

    most = max(begun, steps.facts.training_photos // slice_.replicas)
    fits, fails = largest_batch(need, slice_.generation.available, first=begun, most=most)
    if not fits:
        progress.say(f"{slice_.topology}: not even one photo fits on a replica")
        return 0, found
    limit = f"{fails} do not fit" if fails <= most else "the training split has no more"
    progress.say(f"{slice_.topology}: --batch_size_per_replica={fits} fits, {limit}")
    return fits, outcomes[fits]


def _measure_input(given: Config) -> float:
    """The photos per second that this machine can feed a TPU with."""
    one = Devices(tf.distribute.get_strategy(), "TPU", replicas=1)
    config = parts.resolve(dataclasses.replace(given, global_batch_size=0), one)
    with progress.bar(1, "measuring the input", "measurement"):
        return input_images_per_second(config)


def _resolve(given: Config, slice_: Slice) -> Config:
    """The configuration as it would be on a slice."""
    return parts.resolve(given, Devices(tf.distribute.get_strategy(), "TPU", slice_.replicas))


def _output_path(folder: str, given: Config) -> str:
    """Where the JSON goes; what is there already must be of an earlier check."""
    path = files.join(folder, f"{os.path.basename(os.path.normpath(given.run_dir))}.json")
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


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("libtpu", "jaxlib", "tensorflow")}
