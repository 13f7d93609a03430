"""The guard: the steps of every backbone compile for a TPU, with the TPU's own compiler."""

import dataclasses
import json

import pytest
import tensorflow as tf

from flowers_tpu.commands import cli
from flowers_tpu.models.backbones import BACKBONES, check_backbone
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import tpu_slices
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from flowers_tpu.tpu import compiler, diagnosis, lowering
from flowers_tpu.tpu.compiler import Compiled
from flowers_tpu.tpu.data_facts import DataFacts
from tests.tpu.checking import rows_of

try:
    compiler.check_installed()
except RequestError as error:
    pytest.skip(str(error), allow_module_level=True)

(V3,) = tpu_slices.parse_slices("v3:2x2")
BATCH, MINUTES = 8, 20

# One of every family; of what differs in depth and width alone, the smallest.
FAMILIES = {
    "tiny": 32,
    "small_cnn": 32,
    "mobilenet_v2": 32,
    "mobilenet": 32,
    "vgg16": 32,
    "resnet50": 32,
    "densenet121": 32,
    "xception": 71,
    "inception_v3": 75,
    "mobilenet_v3_small": 32,
    "resnet50_v2": 32,
    "inception_resnet_v2": 75,
    "regnet_y_002": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_b0": 32,
}


def steps_of(**flags):
    """Returns the steps of a run, with random weights."""
    spec = Spec.of(batch_size_per_replica=BATCH, run_dir="x", **flags)
    size = spec.data.image_size
    check_backbone(spec.model.backbone, image_size=size, alpha=spec.model.alpha)
    recipe = Recipe.on(one_cpu_replica(Facts("TPU", V3.replicas)), spec)
    return lowering.Steps(recipe, DataFacts(104, size, 12_753))


def compile_steps(names=(), **flags):
    """Compiles the steps of a run, or those named.

    Returns:
        The number of its trained weights, and what the compiler says of each step.
    """
    run = steps_of(**flags)
    return trained_weights(run), {
        step.name: compiler.compile_for(V3, run.lower(step, BATCH).module, seconds=MINUTES * 60)
        for step in run.steps
        if not names or step.name in names
    }


def trained_weights(run):
    variables = run.state.classifier.model.trainable_variables
    return sum(variable.shape.num_elements() for variable in variables)


def check_figures(weights, compiled, *, is_next_to_nothing=False):
    """What must be true of the compiler's figures of any network."""
    train, evaluation = compiled["fine-tuning"], compiled["evaluation"]
    # Adam's update replaces the weights and both of their moments.
    assert train.memory["aliased"] >= 3 * 4 * weights
    assert train.memory["outputs"] - train.memory["aliased"] < 1e6
    assert evaluation.memory["aliased"] == 0
    # A backward pass takes twice the arithmetic of the forward one, but for what is around it.
    assert is_next_to_nothing or 2 < train.flops / evaluation.flops < 4


def test_the_small_network_compiles_by_the_command(tmp_path, capsys):
    flags = ["--backbone=small_cnn", "--image_size=32", "--dropout=0.2", "--topology=v3"]
    flags += [f"--batch_size_per_replica={BATCH}", "--compile_minutes=5", "--run_dir=runs/small"]
    assert cli.main("tpu_check", [*flags, f"--output_dir={tmp_path}"]) == 0
    assert rows_of(capsys.readouterr().out)["compiles and fits"] == ["yes"] * 4
    (slice_,) = json.loads((tmp_path / "tpu_check.json").read_text())["slices"]
    assert [(step["step"], step["runs"]) for step in slice_["steps"]] == [
        *(("warm-up", True), ("fine-tuning", True), ("evaluation", True), ("prediction", True))
    ]
    compiled = {
        step["step"]: Compiled(
            *(step["compiler"][name] for name in ("memory", "flops", "bytes_accessed", "seconds"))
        )
        for step in slice_["steps"]
    }
    # The 3x3 convolutions: channels in and out, and side of the result.
    convolutions = [
        *((3, 32, 16), (32, 32, 8), (32, 32, 8), (32, 32, 8), (32, 64, 4), (64, 64, 4)),
        *((64, 64, 4), (64, 128, 2), (128, 128, 2), (128, 128, 2)),
    ]
    # Their kernels, scale and offset of the normalization after each, and the head: float32.
    weights = sum(9 * into * out + 2 * out for into, out, _ in convolutions) + 129 * 104
    gradients = [step["bounds"]["all_reduce_bytes"] for step in slice_["steps"]]
    assert gradients == [4 * 129 * 104, 4 * weights, 0, 0]
    check_figures(weights, compiled)
    by_hand = sum(2 * 9 * into * out * side**2 for into, out, side in convolutions)
    # What falls on the zeros around an image is not counted: 1 of 9 to 5 of 9 products.
    assert 0.5 < compiled["prediction"].flops / (BATCH * by_hand) < 1.05


def test_a_family_compiles():
    names = ("fine-tuning", "evaluation")
    check_figures(*compile_steps(names, backbone="mobilenet_v2", image_size=32, alpha=0.35))


def test_a_step_with_averages_mixing_two_rates_and_parts_compiles():
    """Of the run's state it leaves only the warm-up's alone: two moments of the head's weights."""
    flags = {"backbone": "small_cnn", "image_size": 32, "augment_on": "device", "dropout": 0.2}
    flags |= {"mixup": 0.2, "cutmix": 1.0, "ema_decay": 0.99, "backbone_rate": 0.1, "clip_norm": 1}
    run = steps_of(**flags, accumulate_steps=4)
    (step,) = (step for step in run.steps if step.name == "fine-tuning")
    lowered = run.lower(step, 4 * BATCH)
    head = 129 * 104
    assert lowered.other_state_bytes == pytest.approx(4 * 2 * head, abs=100)
    assert lowered.all_reduce_bytes == 4 * trained_weights(run)
    compiled = compiler.compile_for(V3, lowered.module, seconds=MINUTES * 60)
    assert compiled.memory["outputs"] - compiled.memory["aliased"] < 1e6


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_compiles(backbone):
    weights, compiled = compile_steps(backbone=backbone, image_size=FAMILIES[backbone])
    assert len(compiled) == 4
    check_figures(weights, compiled, is_next_to_nothing=backbone == "tiny")


def test_every_backbone_belongs_to_a_family_that_is_compiled():
    def families(names):
        return {BACKBONES[name].application.__module__.replace("vgg19", "vgg16") for name in names}

    assert families(BACKBONES) == families(FAMILIES)


def test_the_compiler_says_what_memory_a_program_may_use():
    """The figures of `available` in `tpu_slices.py` are the compiler's own."""
    step = lowering.Step("too large", lambda batch: batch["weight"] + 1)
    module = lowering.lower(step, {"weight": tf.TensorSpec([2**35], tf.float32)}).module
    for generation in tpu_slices.GENERATIONS:
        slice_ = tpu_slices.Slice(generation, generation.layouts[0])
        with pytest.raises(compiler.CompileError) as error:
            compiler.compile_for(slice_, module, seconds=60)
        problem = diagnosis.of_compilation(str(error.value), lambda name: "")
        available = slice_.available / tpu_slices.GIB
        assert problem.reason == "memory", generation.name
        assert f"but {available:.2f} are available" in problem.text


@pytest.mark.slow
def test_every_layout_is_known_to_the_compiler():
    step = lowering.Step("small", lambda batch: batch["weight"] + 1)
    module = lowering.lower(step, {"weight": tf.TensorSpec([8], tf.float32)}).module
    for slice_ in tpu_slices.SLICES:
        assert compiler.compile_for(slice_, module, seconds=60).needed < 1e6


def test_an_unknown_layout_is_the_compilers_error():
    step = lowering.Step("small", lambda batch: batch["weight"] + 1)
    module = lowering.lower(step, {"weight": tf.TensorSpec([8], tf.float32)}).module
    odd = dataclasses.replace(V3, layout="3x3")
    with pytest.raises(compiler.CompileError, match="3x3"):
        compiler.compile_for(odd, module, seconds=60)
