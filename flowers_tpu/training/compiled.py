"""The compiled functions of many steps: where `tf.function` and `strategy.run` meet the steps."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from flowers_tpu.training import steps
from flowers_tpu.training.state import TrainState

Sums = dict[str, np.ndarray]
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def replica_steps(
    state: TrainState, stage: str, seed: int, objective: steps.Objective,
    augment: Augment | None = None,
) -> tuple[Callable, Callable]:  # fmt: skip
    """Returns what a replica does in a step of training: `gradients(batch)`, `update(gradients)`.

    `augment` makes the images that the model sees of those of a batch and its `draws`, on the
    device; None where they come augmented.
    """
    classifier, variables = state.classifier, trained_variables(state, stage)
    if stage == "warmup":
        gradients_of, optimizer = steps.warmup_gradients, state.warmup_optimizer
    else:
        gradients_of, optimizer = steps.finetune_gradients, state.finetune_optimizer

    def gradients_step(batch):
        if augment:
            batch = {**batch, "image": augment(batch["image"], batch["draws"])}
        dropout_seed = tf.stack([tf.constant(seed, tf.int32), tf.cast(state.step, tf.int32)])
        return gradients_of(classifier, batch, dropout_seed, objective)

    def update_step(gradients):
        steps.apply_gradients(optimizer, gradients, variables)

    return gradients_step, update_step


def trained_variables(state: TrainState, stage: str) -> list[tf.Variable]:
    """Returns the variables that a stage, `warmup` or `finetune`, trains."""
    part = state.classifier.head if stage == "warmup" else state.classifier.model
    return part.trainable_variables


def compile_train_steps(
    strategy: tf.distribute.Strategy, state: TrainState, stage: str, seed: int,
    objective: steps.Objective, augment: Augment | None = None,
) -> Callable[[Iterator, tf.Tensor, Sums], tuple[Sums, tf.Tensor, tf.Tensor]]:  # fmt: skip
    """Returns `train_steps(iterator, num_steps, sums)`, which trains many steps in one call.

    `num_steps` is an int64 tensor (a Python number would be traced anew each time) and `sums` are
    float64: each step's are added to them one after the other, so where a call ends makes no
    difference. The loop ends at the first step whose loss or gradients are not finite, before its
    update. Returns the new sums, the last step's gradient norm, and whether all was finite. See
    `replica_steps` for the other arguments.
    """
    gradients_step, update_step = replica_steps(state, stage, seed, objective, augment)

    @tf.function
    def train_steps(iterator, num_steps, sums):
        done, finite, norm = tf.constant(0, tf.int64), tf.constant(True), tf.constant(0.0)
        while finite and done < num_steps:
            gradients, step_sums = strategy.run(gradients_step, args=(next(iterator),))
            step_sums = _local(strategy, step_sums)
            finite, norm = step_sums["finite"], step_sums["gradient_norm"]
            if finite:
                strategy.run(update_step, args=(gradients,))
                state.step.assign_add(1)
                sums = _added(sums, step_sums)
            done += 1
        return sums, norm, finite

    return train_steps


def compile_eval_steps(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator, tf.Tensor, Sums], Sums]:
    """Returns `eval_steps(iterator, num_steps, sums)`; see `compile_train_steps`."""

    @tf.function
    def eval_steps(iterator, num_steps, sums):
        for _ in tf.range(num_steps):
            step_sums = strategy.run(lambda b: steps.eval_step(model, b), args=(next(iterator),))
            sums = _added(sums, _local(strategy, step_sums))
        return sums

    return eval_steps


def compile_predict_step(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator], tf.Tensor]:
    """Returns `predict(iterator)`: the next global batch's logits, `[global batch, classes]`."""

    @tf.function
    def predict(iterator):
        logits = strategy.run(lambda b: steps.predict_step(model, b), args=(next(iterator),))
        return tf.concat(strategy.experimental_local_results(logits), axis=0)

    return predict


def _local(strategy: tf.distribute.Strategy, values):
    """Values that are equal on every replica, as this process sees them."""
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], values)


def _added(sums, step_sums):
    return {name: sums[name] + tf.cast(step_sums[name], tf.float64) for name in sums}
