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
    objective: steps.Objective, augment: Augment | None = None, *, skips_bad_steps: bool = False,
) -> Callable[[Iterator, tf.Tensor, Sums], tuple[Sums, tf.Tensor, tf.Tensor]]:  # fmt: skip
    """Returns `train_steps(iterator, num_steps, sums)`, which trains many steps in one call.

    `num_steps` is an int64 tensor (a Python number would be traced anew each time) and `sums` are
    float64: each step's are added to them one after the other, so where a call ends makes no
    difference. The loop ends at the first bad step, whose loss or gradients are not finite;
    `state.step` tells its number. Returns the new sums, the last step's gradient norm, and whether
    all was finite.

    Args:
        strategy: runs the steps.
        state: see `replica_steps`, as for the arguments that follow.
        stage: `warmup` or `finetune`.
        seed: of dropout.
        objective: what to minimize.
        augment: on the device, or None.
        skips_bad_steps: a bad step leaves weights, slots and sums as they were, so that training
            can go on behind it; the update then waits for the last of the gradients. Without it
            they are spoilt behind a bad step.
    """
    gradients_step, update_step = replica_steps(state, stage, seed, objective, augment)

    def whole_step(batch):
        gradients, sums = gradients_step(batch)
        update_step(gradients)
        return sums

    def do_step(batch, sums):
        step_sums = _local(strategy, strategy.run(whole_step, args=(batch,)))
        state.step.assign_add(tf.cast(step_sums["finite"], tf.int64))
        return _added(sums, step_sums), step_sums

    def do_step_unless_bad(batch, sums):
        gradients, step_sums = strategy.run(gradients_step, args=(batch,))
        step_sums = _local(strategy, step_sums)
        if step_sums["finite"]:
            strategy.run(update_step, args=(gradients,))
            state.step.assign_add(1)
            sums = _added(sums, step_sums)
        return sums, step_sums

    step = do_step_unless_bad if skips_bad_steps else do_step

    @tf.function
    def train_steps(iterator, num_steps, sums):
        done, finite, norm = tf.constant(0, tf.int64), tf.constant(True), tf.constant(0.0)
        while finite and done < num_steps:
            sums, step_sums = step(next(iterator), sums)
            finite, norm = step_sums["finite"], step_sums["gradient_norm"]
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
