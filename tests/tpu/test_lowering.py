"""The cheap guard: every step is an XLA program of static shapes. Needs no TPU compiler."""

import pytest
import tensorflow as tf
from tensorflow.compiler.xla.service import hlo_pb2

from flowers_tpu.data.augment.draws import NUM_DRAWS
from flowers_tpu.models.classifier import batch_norm_statistics
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from flowers_tpu.tpu import lowering
from flowers_tpu.tpu.data_facts import DataFacts

CLASSES, BATCH = 5, 3
FACTS = DataFacts(CLASSES, photo_size=32, training_photos=100, assumed="for a test")
STEPS = ["warm-up", "fine-tuning", "evaluation", "prediction"]


def recipe_of(**flags):
    spec = Spec.of(**{"image_size": 32, "batch_size_per_replica": BATCH, "run_dir": "x", **flags})
    return Recipe.on(one_cpu_replica(Facts("TPU", 8)), spec)


def lower_all(recipe):
    """Returns the state of a run, and its steps with what they become."""
    run = lowering.Steps(recipe, FACTS)
    return run.state, {step.name: run.lower(step, BATCH) for step in run.steps}


@pytest.fixture(scope="module")
def small():
    return lower_all(recipe_of(backbone="small_cnn", dropout=0.3))


def size(variables):
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


def parameters(lowered):
    """Sizes of a program's inputs in bytes, and the numbers of those that an output replaces."""
    module = hlo_pb2.HloModuleProto.FromString(lowered.module)
    bytes_of = {1: 1, 2: 1, 4: 4, 5: 8, 6: 1, 9: 8, 11: 4}  # PRED S8 S32 S64 U8 U64 F32
    sizes = []
    for shape in module.host_program_shape.parameters:
        elements = 1
        for dimension in shape.dimensions:
            elements *= dimension
        sizes.append(elements * bytes_of[shape.element_type])
    return sizes, {entry.parameter_number for entry in module.input_output_alias.entries}


def shapes_of(lowered):
    """The shapes of all results of a program, those within tuples too."""
    module = hlo_pb2.HloModuleProto.FromString(lowered.module)
    for computation in module.computations:
        for instruction in computation.instructions:
            yield instruction.shape
            yield from instruction.shape.tuple_shapes


def is_dynamic(shape):
    return any(shape.is_dynamic_dimension)


def test_every_step_is_there(small):
    _, programs = small
    assert list(programs) == STEPS


# A flag that puts other operations into the steps, and on which network; `tiny` has no batch
# normalization, but lowers in a second.
VARIANTS = {
    **{name: {"optimizer": name} for name in ("sgd", "adam")},
    **{name: {"optimizer": name, "weight_decay": 0.01} for name in ("adamw", "radam", "novograd")},
    "lamb": {"optimizer": "lamb", "weight_decay": 0.01},
    "synchronized": {"backbone": "small_cnn", "batch_norm": "synchronized"},
    "frozen": {"backbone": "small_cnn", "batch_norm": "frozen"},
    "l2": {"l2": 1e-4},
    "clip_norm": {"clip_norm": 1.0},
    "label_smoothing": {"label_smoothing": 0.1},
    "balanced": {"class_weights": "balanced"},
    "float32": {"precision": "float32"},
    "host": {"augment_on": "host"},
    "warps": {"rotation": 10.0, "zoom": 0.1, "translation": 0.1},
    "colours": {"hue": 0.1, "brightness": 0.1, "contrast": 0.1},
    "erasing": {"random_erasing": 0.5},
    "averages and two rates": {"ema_decay": 0.99, "backbone_rate": 0.1},
    "from a layer on": {"backbone": "small_cnn", "train_from": "stage2"},
    "mobilenet_v2": {"backbone": "mobilenet_v2", "alpha": 0.35},
}


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS)
def test_every_step_is_static_whatever_the_flags(flags):
    state, programs = lower_all(recipe_of(**{"backbone": "tiny", **flags}))
    assert list(programs) == STEPS
    for name, program in programs.items():
        shapes = list(shapes_of(program))
        assert len(shapes) > 10 and not any(map(is_dynamic, shapes)), name
    # What a step updates is replaced in place: weights, moving statistics, slots, the step.
    model = state.classifier.model
    updated = [*model.trainable_variables, *batch_norm_statistics(model).all]
    updated += [*state.finetune_optimizer.variables(), state.step]
    updated += state.backbone_optimizer.variables() if state.backbone_optimizer else []
    updated += state.averages.variables if state.averages else []
    sizes, aliased = parameters(programs["fine-tuning"])
    assert sum(sizes[number] for number in aliased) == size(updated)
    trained = size(model.trainable_variables)
    assert programs["fine-tuning"].all_reduce_bytes == trained


def test_flags_reach_the_programs():
    """So that the variants above are of what their names say."""

    def operations(**flags):
        run = lowering.Steps(recipe_of(**{"backbone": "tiny", **flags}), FACTS)
        program = run.lower(run.steps[1], BATCH)
        module = hlo_pb2.HloModuleProto.FromString(program.module)
        instructions = [i for c in module.computations for i in c.instructions]
        types = {i.shape.element_type for i in instructions if i.opcode == "convolution"}
        return program, [i.opcode for i in instructions], types

    _, opcodes, types = operations()
    assert types == {16}  # BF16
    assert operations(precision="float32")[2] == {11}  # F32
    assert operations(augment_on="host")[0].batch_bytes == BATCH * (32 * 32 * 3 + 8)
    warped = operations(rotation=10.0)[1]
    assert warped.count("gather") > opcodes.count("gather")
    adamw = VARIANTS["adamw"]
    for flags in (VARIANTS["l2"], VARIANTS["clip_norm"], VARIANTS["balanced"], adamw):
        assert len(operations(**flags)[1]) > len(opcodes), flags


def test_stages_without_epochs_are_left_out():
    run = lowering.Steps(recipe_of(backbone="tiny", warmup_epochs=0), FACTS)
    assert [step.name for step in run.steps] == STEPS[1:]


def test_an_assumed_number_of_photos_refuses_no_batch():
    recipe = recipe_of(global_batch_size=800)
    assert lowering.plan_without_data(recipe, FACTS).steps_per_epoch == 1
    with pytest.raises(RequestError, match="has 100 photos, fewer than the global batch of 800"):
        lowering.plan_without_data(recipe, FACTS._replace(assumed=""))


def test_precision_and_place_of_augmentation_are_those_of_a_tpu(small):
    recipe = recipe_of(backbone="small_cnn")
    assert recipe.resolved.arithmetic == "bfloat16"
    assert recipe.resolved.augments_on == "device"
    _, programs = small
    for program in programs.values():
        module = hlo_pb2.HloModuleProto.FromString(program.module)
        types = {
            instruction.shape.element_type
            for computation in module.computations
            for instruction in computation.instructions
            if instruction.opcode == "convolution"
        }
        assert types == {16}  # BF16
    spec = lowering.batch_spec(recipe, BATCH, training=True, photo_size=32)
    assert spec["draws"].shape == [BATCH, NUM_DRAWS]
    of_evaluation = lowering.batch_spec(recipe, BATCH, training=False, photo_size=32)
    assert list(of_evaluation) == ["image", "label", "weight"]
    # The photos' 3 * 32 * 32 * 3 bytes, label and weight of 4 each, and the draws.
    draws = 4 * spec["draws"].shape.num_elements()
    assert programs["fine-tuning"].batch_bytes == BATCH * (32 * 32 * 3 + 8) + draws
    assert programs["evaluation"].batch_bytes == BATCH * (32 * 32 * 3 + 8)


def test_gradients_that_are_summed(small):
    state, programs = small
    head = 128 * CLASSES + CLASSES
    assert programs["warm-up"].all_reduce_bytes == 4 * head
    trainable = size(state.classifier.model.trainable_variables)
    assert programs["fine-tuning"].all_reduce_bytes == trainable
    assert programs["evaluation"].all_reduce_bytes == 0


def test_each_step_takes_the_state_or_leaves_it_alone(small):
    state, programs = small
    model = state.classifier.model
    assert programs["fine-tuning"].other_state_bytes == size(state.warmup_optimizer.variables())
    slots = size(state.warmup_optimizer.variables()) + size(state.finetune_optimizer.variables())
    assert programs["prediction"].other_state_bytes == slots + state.step.dtype.size
    everything = size(model.variables) + slots + state.step.dtype.size
    sizes, _ = parameters(programs["fine-tuning"])
    # Adam keeps its two hyperparameters as tensors of their own, float32.
    captured = everything - programs["fine-tuning"].other_state_bytes
    assert 0 <= sum(sizes) - captured - programs["fine-tuning"].batch_bytes <= 16


def test_what_a_step_updates_takes_no_memory_of_its_own(small):
    state, programs = small
    sizes, aliased = parameters(programs["fine-tuning"])
    updated = (
        size(state.classifier.model.variables)
        + size(state.finetune_optimizer.variables())
        + state.step.dtype.size
    )
    assert sum(sizes[number] for number in aliased) == updated
    assert parameters(programs["evaluation"])[1] == set()


def test_a_dynamic_shape_is_found():
    step = lowering.Step("x", lambda batch: tf.where(batch["weight"] > 0))
    with pytest.raises(lowering.StepError, match=r"Where .* depends on the values"):
        lowering.lower(step, {"weight": tf.TensorSpec([4], tf.float32)})


def test_the_device_crops_from_photos_of_their_own_size():
    recipe = recipe_of(backbone="small_cnn", image_size=64, crop_min=0.7)
    for photo_size, side in ((64, 64), (128, 128), (512, 128)):  # 512 * 0.7 / 4 >= 64
        spec = lowering.batch_spec(recipe, BATCH, training=True, photo_size=photo_size)
        assert spec["image"].shape == [BATCH, side, side, 3]
        spec = lowering.batch_spec(recipe, BATCH, training=False, photo_size=photo_size)
        assert spec["image"].shape == [BATCH, 64, 64, 3]
