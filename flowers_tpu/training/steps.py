"""What one replica does with one batch. Nothing here asks which strategy runs it.

A batch is a dict of `image` `[b, s, s, 3]` uint8, `label` `[b]` int32 and `weight` `[b]` float32.
A train step has two parts, so that the loop can leave the second out where the first gives
gradients that are not finite: an update under a condition does not compile within one replica.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu.models.classifier import Classifier, batch_norm_statistics
from flowers_tpu.models.dropout import dropout_seed
from flowers_tpu.training import losses, metrics
from flowers_tpu.training.optimizers import Optimizer

Batch = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimizes.

    Attributes:
        label_smoothing: see `losses.cross_entropy`.
        class_weights: `[classes]` float32 factors of the examples' losses, or None.
        l2: factor of `losses.l2_penalty`.
        clip_norm: largest global norm of the summed gradients; 0 for none.
    """

    label_smoothing: float = 0.0
    class_weights: np.ndarray | None = None
    l2: float = 0.0
    clip_norm: float = 0.0


def warmup_gradients(
    classifier: Classifier, batch: Batch, seed: tf.Tensor, objective: Objective
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the gradients of the head's variables alone, and what the step came to.

    The backbone runs as in inference and outside the tape, so nothing of it is kept for a backward
    pass. `trainable = False` would not stop its stochastic depth. See `finetune_gradients`.
    """
    features = classifier.features(batch["image"], training=False)
    variables = classifier.head.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        with dropout_seed(seed):
            logits = classifier.head(features, training=True)
        share, loss, outcomes = _loss_and_outcomes(logits, batch, variables, objective)
    return _summed(tape.gradient(share, variables), loss, outcomes, objective)


def finetune_gradients(
    classifier: Classifier, batch: Batch, seed: tf.Tensor, objective: Objective
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the gradients of all trainable variables, and what the step came to.

    Args:
        classifier: the model.
        batch: this replica's part of the global batch.
        seed: `[2]` int32, of dropout; the same on every replica, another for every step.
        objective: what to minimize.

    Returns:
        The gradients, summed over all replicas and then clipped; and `outcomes`, this replica's
        `metrics.outcomes`, with `gradient_norm` (before clipping) and `finite` (bool: whether loss
        and gradients are), which are equal on each replica.
    """
    variables = classifier.model.trainable_variables
    statistics = batch_norm_statistics(classifier.model)
    before = [tf.identity(variable) for variable in statistics]
    with tf.GradientTape() as tape:
        with dropout_seed(seed):
            logits = classifier.model(batch["image"], training=True)
        share, loss, outcomes = _loss_and_outcomes(logits, batch, variables, objective)
    gradients, results = _summed(tape.gradient(share, variables), loss, outcomes, objective)
    _settle_statistics(statistics, before, results["finite"])
    return gradients, results


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

    The shares add up to `sum(weight * loss) / sum(weight)` over the *global* batch, plus the
    regularization once: a mean over the replica's own batch would weigh examples by where they are.
    """
    context = tf.distribute.get_replica_context()
    each = losses.cross_entropy(logits, batch["label"], objective.label_smoothing)
    if objective.class_weights is not None:
        each *= tf.gather(tf.constant(objective.class_weights), batch["label"])
    loss, weight = tf.reduce_sum(each * batch["weight"]), tf.reduce_sum(batch["weight"])
    share = loss / context.all_reduce(tf.distribute.ReduceOp.SUM, weight)
    if objective.l2:
        share += losses.l2_penalty(variables, objective.l2) / context.num_replicas_in_sync
    return share, loss, metrics.outcomes(logits, batch["label"], batch["weight"], each)


def _summed(
    gradients: Sequence[tf.Tensor], loss: tf.Tensor, outcomes: tf.Tensor, objective: Objective
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Sums gradients and loss over the replicas; clips; tells whether all is finite."""
    gradients, loss = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, (list(gradients), loss)
    )
    # As `tf.linalg.global_norm`, in fewer operations: with small networks each of them counts.
    squares = 2 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients])
    norm = tf.sqrt(squares)
    if objective.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, objective.clip_norm, use_norm=norm)
    # They are finite only if every gradient is, and the loss may be infinite where they are not.
    finite = tf.math.is_finite(squares + loss)
    return gradients, {"outcomes": outcomes, "gradient_norm": norm, "finite": finite}


def _settle_statistics(
    statistics: Sequence[tf.Variable], before: Sequence[tf.Tensor], finite: tf.Tensor
) -> None:
    """Averages the moving statistics of batch normalization over the replicas.

    Each replica has moved its own copy by its own batch. A checkpoint holds one copy, so they must
    be equal after every step, or a resumed run would differ. A step that is not applied leaves
    them as they were.
    """
    if not statistics:
        return
    context = tf.distribute.get_replica_context()
    after = [tf.identity(variable) for variable in statistics]
    if context.num_replicas_in_sync > 1:
        after = context.all_reduce(tf.distribute.ReduceOp.MEAN, after)
    for variable, old, new in zip(statistics, before, after, strict=True):
        variable.assign(tf.where(finite, new, old))
