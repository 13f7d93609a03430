"""The guard: the steps of every backbone compile for a TPU, with the TPU's own compiler."""

import dataclasses
import json
import subprocess
import sys

import pytest
import tensorflow as tf
from checking import rows_of

from flowers_tpu.models.backbones import BACKBONES, check_backbone
from flowers_tpu.options import Config
from flowers_tpu.runs import recipe
from flowers_tpu.system import tpu_slices
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.tpu import compiler, diagnosis, lowering
from flowers_tpu.tpu.data_facts import DataFacts

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
    "efficientnet_b0": 32,
    "efficientnet_v2_b0": 32,
}


def compile_steps(names=(), **flags):
    """Compiles the steps of a run, or those named; returns what the compiler says of each."""
    config = Config(batch_size_per_replica=BATCH, run_dir="x", **flags)
    check_backbone(config.backbone, image_size=config.image_size, alpha=config.alpha)
    config = recipe.resolve(config, Devices(tf.distribute.get_strategy(), "TPU", V3.replicas))
    run = lowering.Steps(config, DataFacts(104, config.image_size, 12_753))
    return run.state, {
        step.name: compiler.compile_for(V3, run.lower(step, BATCH).module, seconds=MINUTES * 60)
        for step in run.steps
        if not names or step.name in names
    }


def check_figures(state, compiled):
    """What must be true of the compiler's figures of any network."""
    variables = state.classifier.model.trainable_variables
    weights = sum(4 * variable.shape.num_elements() for variable in variables)
    train, evaluation = compiled["fine-tuning"], compiled["evaluation"]
    # Adam's update replaces the weights and both of their moments.
    assert train.memory["aliased"] >= 3 * weights
    assert train.memory["outputs"] - train.memory["aliased"] < 1e6
    assert evaluation.memory["aliased"] == 0
    # A backward pass takes twice the arithmetic of the forward one.
    assert 2 < train.flops / evaluation.flops < 4


def test_the_small_network_compiles():
    state, compiled = compile_steps(backbone="small_cnn", image_size=32, dropout=0.2)
    assert list(compiled) == ["warm-up", "fine-tuning", "evaluation", "prediction"]
    check_figures(state, compiled)
    # The 3x3 convolutions: channels in and out, and side of the result.
    convolutions = [
        *((3, 32, 16), (32, 32, 8), (32, 32, 8), (32, 32, 8), (32, 64, 4), (64, 64, 4)),
        *((64, 64, 4), (64, 128, 2), (128, 128, 2), (128, 128, 2)),
    ]
    by_hand = sum(2 * 9 * into * out * side**2 for into, out, side in convolutions)
    # What falls on the zeros around an image is not counted: 1 of 9 to 5 of 9 products.
    assert 0.5 < compiled["prediction"].flops / (BATCH * by_hand) < 1.05


def test_a_family_compiles():
    names = ("fine-tuning", "evaluation")
    check_figures(*compile_steps(names, backbone="mobilenet_v2", image_size=32, alpha=0.35))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_compiles(backbone):
    state, compiled = compile_steps(backbone=backbone, image_size=FAMILIES[backbone])
    assert len(compiled) == 4
    check_figures(state, compiled)


def test_every_backbone_belongs_to_a_family_that_is_compiled():
    def families(names):
        return {BACKBONES[name].application.__module__.replace("vgg19", "vgg16") for name in names}

    assert families(BACKBONES) == families(FAMILIES)


def test_the_compiler_says_what_memory_a_program_may_use():
    """The figures of `available` in `tpu_slices.py` are the compiler's own."""
    step = lowering.ReplicaStep("too large", lambda batch: batch["weight"] + 1)
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
    step = lowering.ReplicaStep("small", lambda batch: batch["weight"] + 1)
    module = lowering.lower(step, {"weight": tf.TensorSpec([8], tf.float32)}).module
    for slice_ in tpu_slices.SLICES:
        assert compiler.compile_for(slice_, module, seconds=60).needed < 1e6


def test_an_unknown_layout_is_the_compilers_error():
    step = lowering.ReplicaStep("small", lambda batch: batch["weight"] + 1)
    module = lowering.lower(step, {"weight": tf.TensorSpec([8], tf.float32)}).module
    odd = dataclasses.replace(V3, layout="3x3")
    with pytest.raises(compiler.CompileError, match="3x3"):
        compiler.compile_for(odd, module, seconds=60)


def test_the_script_itself(tmp_path):
    flags = ["--backbone=tiny", "--image_size=32", "--topology=v3"]
    flags += [f"--output_dir={tmp_path}", "--run_dir=runs/small", "--compile_minutes=5"]
    result = subprocess.run(
        [sys.executable, "scripts/tpu_check.py", *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert rows_of(result.stdout)["compiles and fits"] == ["yes"] * 4
    (slice_,) = json.loads((tmp_path / "small.json").read_text())["slices"]
    assert [(step["step"], step["runs"]) for step in slice_["steps"]] == [
        *(("warm-up", True), ("fine-tuning", True), ("evaluation", True), ("prediction", True))
    ]
    # 3 x 3 x 3 x 8 weights, 8 biases and the head's 8 x 104 + 104, float32.
    assert slice_["steps"][1]["bounds"]["all_reduce_bytes"] == 4 * (216 + 8 + 832 + 104)
