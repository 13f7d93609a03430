"""The steps of a run as XLA programs: what one replica of a TPU would be given to compile.

They are the functions that training, evaluation and prediction run on a replica, lowered under the
default strategy, on which a sum over the replicas is the identity; what that costs is worked out
from its size (`roofline.py`). Gradients and update of a step are one program, as in training; with
`--on_nan=skip`, which is not looked at here, they are two.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

# Part of TensorFlow's wheel, so finding dynamic shapes needs no other package.
from tensorflow.compiler.xla.service import hlo_pb2

from flowers_tpu.data.augment.draws import NUM_DRAWS
from flowers_tpu.data.splits import Split
from flowers_tpu.runs.feed import Feed, train_decoder
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.tpu import diagnosis
from flowers_tpu.tpu.data_facts import DataFacts
from flowers_tpu.tpu.diagnosis import StepError
from flowers_tpu.training import multistep, steps
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState

_STAGES = {"warmup": "warm-up", "finetune": "fine-tuning"}


@dataclasses.dataclass(frozen=True)
class Step:
    """What one replica does in a step.

    Attributes:
        name: `warm-up`, `fine-tuning`, `evaluation` or `prediction`.
        function: of a batch.
        training: whether its batches are those of training.
        summed: variables whose gradients are summed over the replicas.
    """

    name: str
    function: Callable[[steps.Batch], object]
    training: bool = False
    summed: tuple[tf.Variable, ...] = ()


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A step as an XLA program, with what is worked out from its inputs.

    Attributes:
        module: a serialized `HloModuleProto`.
        batch_bytes: size of the batch of one replica.
        all_reduce_bytes: size of its gradients.
        other_state_bytes: size of the variables of the run that this step leaves alone; they are in
            the memory of a TPU all the same.
        source_of: gives the source line of an operation by its name.
    """

    module: bytes
    batch_bytes: int
    all_reduce_bytes: int
    other_state_bytes: int
    source_of: Callable[[str], str]


class Steps:
    """The steps of a run, lowered when asked for; the model is built once.

    Attributes:
        recipe: of the run.
        facts: of its data.
        state: of the run, with random weights.
        steps: of the run: training in both stages, evaluation and prediction.
    """

    def __init__(self, recipe: Recipe, facts: DataFacts):
        self.recipe, self.facts = recipe, facts
        plan = plan_without_data(recipe, facts)
        self.state = recipe.changed(weights="none").state(plan)
        self.steps = replica_steps(recipe, self.state, plan)
        self._lowered: dict[tuple[str, int], Lowered] = {}

    def lower(self, step: Step, batch_size: int) -> Lowered:
        """Returns a step for so many photos on a replica; raises StepError."""
        if not step.training:
            batch_size = max(1, batch_size // self.recipe.spec.training.accumulate_steps)
        key = step.name, batch_size
        if key not in self._lowered:
            spec = batch_spec(
                self.recipe,
                batch_size,
                training=step.training,
                photo_size=self.facts.photo_size,
            )
            self._lowered[key] = lower(step, spec, state_variables(self.state))
        return self._lowered[key]


def plan_without_data(recipe: Recipe, facts: DataFacts) -> Plan:
    """Works out the numbers of a run from what is known of its data.

    Balanced class weights are those of equally many photos of each class.

    Raises:
        RequestError: there are fewer training photos than a global batch has.
    """
    photos = facts.training_photos
    if facts.assumed:  # a number that is only assumed refuses nothing
        photos = max(photos, recipe.resolved.photos_per_step)
    labels = np.arange(photos, dtype=np.int32) % facts.num_classes
    split = Split("train", shards=(), ids=labels, labels=labels)
    names = tuple(map(str, range(facts.num_classes)))
    return recipe.plan(Data("", names, {"train": split}))


def replica_steps(recipe: Recipe, state: TrainState, plan: Plan) -> list[Step]:
    """Returns the steps of a run: training in both stages, evaluation and prediction."""
    model, prepare = state.classifier.evaluated, Feed(recipe, {}).prepare
    epochs = {"warmup": plan.schedule.warmup_epochs, "finetune": plan.schedule.epochs}
    training = []
    for stage, name in _STAGES.items():
        if epochs[stage]:
            step = multistep.replica_step(state, stage, plan.objective, prepare)
            whole, summed = multistep.whole_step(step, state), tuple(step.variables)
            training.append(Step(name, whole, training=True, summed=summed))
    return [
        *training,
        Step("evaluation", functools.partial(steps.eval_step, model)),
        Step("prediction", functools.partial(steps.predict_step, model)),
    ]


def batch_spec(
    recipe: Recipe, batch_size: int, *, training: bool, photo_size: int
) -> dict[str, tf.TensorSpec]:
    """Returns what a replica's batch is made of."""
    data, spec = recipe.spec.data, {}
    side = data.image_size if training else data.evaluation_size
    if training and recipe.resolved.augments_on == "device":
        side = train_decoder(recipe, photo_size).side
    if training and Feed(recipe, {}).gives_draws:
        spec["draws"] = tf.TensorSpec([batch_size, NUM_DRAWS], tf.float32)
    return {
        "image": tf.TensorSpec([batch_size, side, side, 3], tf.uint8),
        "label": tf.TensorSpec([batch_size], tf.int32),
        "weight": tf.TensorSpec([batch_size], tf.float32),
        **spec,
    }


def lower(step: Step, spec: dict[str, tf.TensorSpec], state: Iterable[tf.Variable] = ()) -> Lowered:
    """Lowers a step.

    Args:
        step: what to lower.
        spec: of its batch, whose first dimension is the batch size.
        state: all variables that are kept on the device.

    Raises:
        StepError: there is an operation that has no XLA counterpart, or a shape is not static.
    """
    # One argument per tensor: only so are specifications taken in the place of values.
    function = tf.function(
        lambda *values: step.function(dict(zip(spec, values, strict=True))), jit_compile=True
    )
    graph = function.get_concrete_function(*spec.values()).graph

    def source_of(name: str) -> str:
        return diagnosis.source_of(graph, name)

    try:
        module = function.experimental_get_compiler_ir(*spec.values())(stage="hlo_serialized")
    except (ValueError, tf.errors.OpError) as error:
        raise StepError(diagnosis.of_lowering(error)) from error
    for kind, name in dynamic_operations(module):
        raise StepError(diagnosis.of_dynamic_shape(kind, name, source_of(name)))
    used = {id(outside) for outside, _ in graph.captures}
    others = [variable for variable in state if id(variable.handle) not in used]
    return Lowered(
        module=module,
        batch_bytes=sum(map(_size, spec.values())),
        all_reduce_bytes=sum(map(_size, step.summed)),
        other_state_bytes=sum(map(_size, others)),
        source_of=source_of,
    )


def dynamic_operations(module: bytes) -> list[tuple[str, str]]:
    """Returns type and name of the operations whose results have no static shape, in order."""
    found = {}
    modules: Any = hlo_pb2  # whose messages have no types
    for computation in modules.HloModuleProto.FromString(module).computations:
        for instruction in computation.instructions:
            if _is_dynamic(instruction.shape):
                metadata = instruction.metadata
                found[metadata.op_type or instruction.opcode, metadata.op_name] = None
    return list(found)


def state_variables(state: TrainState) -> list[tf.Variable]:
    """All that a run keeps on the device: weights, their averages, and the optimizers' slots."""
    optimizers = (state.warmup_optimizer, state.finetune_optimizer, state.backbone_optimizer)
    slots = [v for optimizer in optimizers if optimizer for v in optimizer.variables()]
    averages = state.averages.variables if state.averages else ()
    return [*state.classifier.model.variables, *slots, *averages, state.step]


def _is_dynamic(shape) -> bool:
    return any(shape.is_dynamic_dimension) or any(map(_is_dynamic, shape.tuple_shapes))


def _size(value: tf.TensorSpec | tf.Variable) -> int:
    return value.shape.num_elements() * value.dtype.size
