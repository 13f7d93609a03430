"""The compiled functions of many steps: where `tf.function` and `strategy.run` meet the steps."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from flowers_tpu.training import steps
from flowers_tpu.training.state import TrainState

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
) -> Callable[[Iterator, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:  # fmt: skip
    """Returns `train_steps(iterator, num_steps)`, which trains many steps in one call.

    `num_steps` is an int32 tensor (a Python number would be traced anew each time). The loop ends
    at the first bad step, whose loss or gradients are not finite; `state.step` tells its number.
    Returns the `metrics.outcomes` of all good steps, `[steps * global batch, columns]`, in the
    order of the photos; the last step's gradient norm; and whether all was finite.

    Args:
        strategy: runs the steps.
        state: see `replica_steps`, as for the arguments that follow.
        stage: `warmup` or `finetune`.
        seed: of dropout.
        objective: what to minimize.
        augment: on the device, or None.
        skips_bad_steps: a bad step leaves weights and slots as they were, so that training can go
            on behind it; the update then waits for the last of the gradients. Without it they are
            spoilt behind a bad step.
    """
    gradients_step, update_step = replica_steps(state, stage, seed, objective, augment)

    def whole_step(batch):
        gradients, results = gradients_step(batch)
        update_step(gradients)
        return results

    def do_step(batch):
        results = strategy.run(whole_step, args=(batch,))
        state.step.assign_add(tf.cast(_local(strategy, results["finite"]), tf.int64))
        return results

    def do_step_unless_bad(batch):
        gradients, results = strategy.run(gradients_step, args=(batch,))
        if _local(strategy, results["finite"]):
            strategy.run(update_step, args=(gradients,))
            state.step.assign_add(1)
        return results

    step = do_step_unless_bad if skips_bad_steps else do_step

    @tf.function
    def train_steps(iterator, num_steps):
        outcomes = tf.TensorArray(tf.float32, num_steps)
        done, finite, norm = tf.constant(0), tf.constant(True), tf.constant(0.0)
        while finite and done < num_steps:
            results = step(next(iterator))
            outcomes = outcomes.write(done, _joined(strategy, results["outcomes"]))
            finite = _local(strategy, results["finite"])
            norm = _local(strategy, results["gradient_norm"])
            done += 1
        good = done - tf.cast(not finite, tf.int32)
        return _rows(outcomes.gather(tf.range(good))), norm, finite

    return train_steps


def compile_eval_steps(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator, tf.Tensor], tf.Tensor]:
    """Returns `eval_steps(iterator, num_steps)`, which gives the `metrics.outcomes` of so many."""

    @tf.function
    def eval_steps(iterator, num_steps):
        outcomes = tf.TensorArray(tf.float32, num_steps)
        for number in tf.range(num_steps):
            rows = strategy.run(lambda b: steps.eval_step(model, b), args=(next(iterator),))
            outcomes = outcomes.write(number, _joined(strategy, rows))
        return _rows(outcomes.stack())

    return eval_steps


def compile_predict_step(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator], tf.Tensor]:
    """Returns `predict(iterator)`: the next global batch's logits, `[global batch, classes]`."""

    @tf.function
    def predict(iterator):
        logits = strategy.run(lambda b: steps.predict_step(model, b), args=(next(iterator),))
        return _joined(strategy, logits)

    return predict


def _local(strategy: tf.distribute.Strategy, value) -> tf.Tensor:
    """A value that is equal on every replica."""
    return strategy.experimental_local_results(value)[0]


def _joined(strategy: tf.distribute.Strategy, values) -> tf.Tensor:
    """The replicas' parts of a global batch, one behind the other."""
    return tf.concat(strategy.experimental_local_results(values), axis=0)


def _rows(of_steps: tf.Tensor) -> tf.Tensor:
    """`[steps, global batch, columns]` -> `[steps * global batch, columns]`."""
    return tf.reshape(of_steps, [-1, of_steps.shape[-1]])
