"""What one replica does with one batch. Nothing here asks which strategy runs it.

A train step has two parts, gradients and update, so that the second can be left out if gradients
are not finite: an update under a condition does not compile within one replica.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowers_tpu.models.classifier import Classifier, batch_norm_statistics
from flowers_tpu.models.dropout import Part, dropout_seed
from flowers_tpu.training import losses, metrics
from flowers_tpu.training.optimizers import Optimizer
from flowers_tpu.training.options import TrainingOptions

# What a replica sees in a step, by name:
#   image   [b, side, side, 3] uint8; or [b, channels] float32, features in warm-up
#   label   [b] int32
#   weight  [b] float32: 1, or 0 for padding
#   draws   [b, NUM_DRAWS] float32, if the device augments or mixes
#   other   [b] int32, the second label of a mixed photo
#   share   [b] float32, how much of a mixed photo is of the first label
Batch = dict[str, tf.Tensor]


class StepResult(NamedTuple):
    """What a step of training came to.

    Attributes:
        outcomes: `[b, metrics.COLUMNS]` float32, of this replica's examples.
        gradient_norm: of the summed gradients before clipping; equal on every replica.
        finite: bool, whether loss and gradients are, but for gradients that only the scale of the
            loss has made too large for float16; equal on every replica.
        updates: bool, whether loss and gradients are finite; equal on every replica.
    """

    outcomes: tf.Tensor
    gradient_norm: tf.Tensor
    finite: tf.Tensor
    updates: tf.Tensor


class PartResult(NamedTuple):
    """What one replica finds of some of its examples.

    Attributes:
        gradients: of their share of the global loss.
        loss: the sum of their losses.
        outcomes: `[b, metrics.COLUMNS]` float32.
    """

    gradients: list[tf.Tensor]
    loss: tf.Tensor
    outcomes: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimizes.

    Attributes:
        options: label smoothing, L2, clipping, and whether bad steps are left out.
        photos_per_update: examples of the global batch, each of which counts 1; the pipeline fills
            no batch of training up.
        class_weights: `[classes]` float32 factors of the examples' losses, or None.
        jit: whether XLA compiles a replica's forward and backward pass.
    """

    options: TrainingOptions
    photos_per_update: int
    class_weights: np.ndarray | None = None
    jit: bool = False

    @property
    def skips_bad_steps(self) -> bool:
        """Whether a step that is not finite leaves everything as it was; else it ends the run."""
        return self.options.on_nan == "skip"


def warmup_gradients(
    classifier: Classifier,
    batch: Batch,
    seed: tf.Tensor,
    objective: Objective,
    scale: tf.Tensor | None = None,
) -> tuple[list[tf.Tensor], StepResult]:
    """Returns the gradients of the head's variables alone, and what the step came to.

    The backbone runs as in inference and outside the tape, so nothing of it is kept for a backward
    pass. `trainable = False` would not stop its stochastic depth. See `finetune_gradients`.
    """
    variables = classifier.head.trainable_variables

    def gradients_of(batch: Batch, part: Part) -> PartResult:
        features = batch["image"]
        if features.shape.rank > 2:  # else they were worked out before
            features = classifier.features(features, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            with dropout_seed(seed, part):
                logits = classifier.head(features, training=True)
            share, loss, outcomes = _loss_and_outcomes(logits, batch, variables, objective)
            share = _scaled(share, scale)
        return PartResult(tape.gradient(share, variables), loss, outcomes)

    return _summed(_worked_out(gradients_of, batch, objective), objective, scale)


def finetune_gradients(
    classifier: Classifier,
    batch: Batch,
    seed: tf.Tensor,
    objective: Objective,
    scale: tf.Tensor | None = None,
) -> tuple[list[tf.Tensor], StepResult]:
    """Returns the gradients of all trainable variables, and what the step came to.

    Args:
        classifier: the model.
        batch: this replica's part of the global batch.
        seed: `[2]` int32, of dropout; the same on every replica, another for every step.
        objective: what to minimize.
        scale: what the loss is multiplied by before the backward pass, and the sum of gradients
            divided by after it: float32, in float16; None: nothing. A step that is not finite then
            leaves everything as it was.

    Returns:
        The gradients, summed over all replicas and then clipped; and the result.
    """
    variables = trained_in_finetuning(classifier)
    statistics = batch_norm_statistics(classifier.model)
    may_be_left_out = objective.skips_bad_steps or scale is not None
    before = [tf.identity(v) for v in statistics.all] if may_be_left_out else None

    def gradients_of(batch: Batch, part: Part) -> PartResult:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            with dropout_seed(seed, part):
                logits = classifier.model(batch["image"], training=True)
            share, loss, outcomes = _loss_and_outcomes(logits, batch, variables, objective)
            share = _scaled(share, scale)
        return PartResult(tape.gradient(share, variables), loss, outcomes)

    gradients, result = _summed(_worked_out(gradients_of, batch, objective), objective, scale)
    _average_over_replicas(statistics.per_replica)
    if before:
        for variable, old in zip(statistics.all, before, strict=True):
            variable.assign(tf.where(result.updates, variable, old))
    return gradients, result


def trained_in_finetuning(classifier: Classifier) -> list[tf.Variable]:
    """Returns the variables that fine-tuning trains: the backbone's, then the head's."""
    return [*classifier.features.trainable_variables, *classifier.head.trainable_variables]


def apply_gradients(
    optimizer: Optimizer, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]
) -> None:
    """Updates the variables by gradients that are already summed over the replicas."""
    optimizer.apply_gradients(
        zip(gradients, variables, strict=True), experimental_aggregate_gradients=False
    )


def eval_step(model: tf.keras.Model, batch: Batch) -> tf.Tensor:
    """Returns this replica's `metrics.outcomes`; the loss is plain cross-entropy."""
    logits = model(batch["image"], training=False)
    each = losses.cross_entropy(logits, batch["label"])
    return metrics.outcomes(logits, batch["label"], batch["weight"], each)


def predict_step(model: tf.keras.Model, batch: Batch) -> tf.Tensor:
    """Returns this replica's logits, `[b, classes]` float32."""
    return model(batch["image"], training=False)


def _loss_and_outcomes(
    logits: tf.Tensor, batch: Batch, variables: Sequence[tf.Variable], objective: Objective
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns this replica's share of the global loss, its sum of losses, and its outcomes.

    The shares add up to the mean loss over the *global* batch, plus the regularization once: a mean
    over the replica's own batch would weigh examples by where they are. The sum of the weights is a
    constant, so no replica waits for others between its forward and its backward pass.
    """
    options = objective.options
    each = _losses(logits, batch["label"], objective)
    if "share" in batch:
        of_other = _losses(logits, batch["other"], objective)
        each = batch["share"] * each + (1 - batch["share"]) * of_other
    loss = tf.reduce_sum(each * batch["weight"])
    share = loss / objective.photos_per_update
    if options.l2:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        parts = replicas * options.accumulate_steps
        share += losses.l2_penalty(variables, options.l2) / parts
    return share, loss, metrics.outcomes(logits, batch["label"], batch["weight"], each)


def _losses(logits: tf.Tensor, labels: tf.Tensor, objective: Objective) -> tf.Tensor:
    each = losses.cross_entropy(logits, labels, objective.options.label_smoothing)
    if objective.class_weights is not None:
        each *= tf.gather(tf.constant(objective.class_weights), labels)
    return each


def _scaled(share: tf.Tensor, scale: tf.Tensor | None) -> tf.Tensor:
    return share if scale is None else share * scale


def _worked_out(
    gradients_of: Callable[[Batch, Part], PartResult], batch: Batch, objective: Objective
) -> PartResult:
    """Works out this replica's gradients, compiled by XLA if the objective says so.

    What replicas exchange is outside: within what XLA compiles here there is no collective.
    """

    def work(batch: Batch) -> PartResult:
        return _over_parts(gradients_of, batch, objective)

    # A function of its own for each replica, whose number is a constant in it.
    return tf.function(work, jit_compile=True)(batch) if objective.jit else work(batch)


def _over_parts(
    gradients_of: Callable[[Batch, Part], PartResult], batch: Batch, objective: Objective
) -> PartResult:
    """Sums gradients and losses over the parts of a replica's batch, one part after another.

    It is a loop in the graph, so that each part's activations are gone before the next begins, and
    the program does not grow with the number of parts.
    """
    parts = objective.options.accumulate_steps
    if parts == 1:
        return gradients_of(batch, Part())
    rows = batch["label"].shape[0] // parts

    def one(number: tf.Tensor) -> PartResult:
        # A slice of a constant size: XLA takes that of `values[begin:end]` for unknown.
        part = {
            name: tf.slice(values, [number * rows, *[0] * (values.shape.rank - 1)],
                           [rows, *values.shape[1:]])
            for name, values in batch.items()
        }  # fmt: skip
        return gradients_of(part, Part(number, parts))

    def add(number: tf.Tensor, sums: PartResult, outcomes: tf.TensorArray) -> tuple:
        found = one(number)
        gradients = [a + b for a, b in zip(sums.gradients, found.gradients, strict=True)]
        outcomes = outcomes.write(number, found.outcomes)
        return number + 1, PartResult(gradients, sums.loss + found.loss, sums.outcomes), outcomes

    first = one(tf.constant(0))
    outcomes = tf.TensorArray(tf.float32, parts, element_shape=first.outcomes.shape)
    _, sums, outcomes = tf.while_loop(
        lambda number, *_: number < parts,
        add,
        (tf.constant(1), first, outcomes.write(0, first.outcomes)),
        parallel_iterations=1,
        maximum_iterations=parts - 1,
    )
    return sums._replace(outcomes=tf.reshape(outcomes.stack(), [rows * parts, -1]))


def _summed(
    found: PartResult, objective: Objective, scale: tf.Tensor | None
) -> tuple[list[tf.Tensor], StepResult]:
    """Sums gradients and loss over the replicas; clips; finds out whether all is finite."""
    gradients, loss = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, (list(found.gradients), found.loss)
    )
    if scale is not None:
        gradients = [gradient / scale for gradient in gradients]
    # As `tf.linalg.global_norm`, in fewer operations: with small networks each of them counts.
    squares = 2 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients])
    norm = tf.sqrt(squares)
    if most := objective.options.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, most, use_norm=norm)
    # They are finite only if every gradient is, and the loss may be infinite where they are not.
    finite = updates = tf.math.is_finite(squares + loss)
    if scale is not None:
        # At scale 1 there is nothing left to blame on it.
        finite |= tf.math.is_finite(loss) & (scale > 1)
    return gradients, StepResult(found.outcomes, norm, finite, updates)


def _average_over_replicas(statistics: Sequence[tf.Variable]) -> None:
    """Averages moving statistics that each replica has moved by its own batch.

    A checkpoint holds one copy of them, so they must be equal after every step, or a resumed run
    would differ.
    """
    context = tf.distribute.get_replica_context()
    if not statistics or context.num_replicas_in_sync == 1:
        return
    moved = [tf.identity(variable) for variable in statistics]
    means = context.all_reduce(tf.distribute.ReduceOp.MEAN, moved)
    for variable, mean in zip(statistics, means, strict=True):
        variable.assign(mean)
