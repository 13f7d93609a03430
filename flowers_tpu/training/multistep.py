"""The compiled functions of many steps: where `tf.function` and `strategy.run` meet the steps."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from flowers_tpu.training import optimizers, steps
from flowers_tpu.training.state import TrainState

Prepare = Callable[[steps.Batch], steps.Batch]


class Results(NamedTuple):
    """What the steps of a compiled call came to.

    Attributes:
        outcomes: `[steps, global batch, metrics.COLUMNS]` float32, in the order of the photos.
        gradient_norms: `[steps]` float32.
        finite: `[steps]` bool; see `steps.StepResult`.
        updates: `[steps]` bool, whether the step has updated the weights, or would have.
        input_waits: `[steps]` float32, seconds from the end of the step before (of the call's
            begin) until the batch was there. Where the host runs ahead of a device that is still
            busy with earlier steps, it is the host's wait: the device waited for less. 0 where all
            is to be deterministic, as a graph then has no clock.
    """

    outcomes: tf.Tensor
    gradient_norms: tf.Tensor
    finite: tf.Tensor
    updates: tf.Tensor
    input_waits: tf.Tensor


class ReplicaStep(NamedTuple):
    """What a replica does in a step of training, in two parts.

    Attributes:
        gradients: of a batch: the gradients, and the `steps.StepResult`.
        update: of the gradients: updates the variables, and the averages of weights.
        variables: those that are trained.
    """

    gradients: Callable[[steps.Batch], tuple[list[tf.Tensor], steps.StepResult]]
    update: Callable[[list[tf.Tensor]], None]
    variables: list[tf.Variable]


def replica_step(
    state: TrainState,
    stage: str,
    objective: steps.Objective,
    prepare: Prepare | None = None,
) -> ReplicaStep:
    """Returns what a replica does in a step of a stage, `warmup` or `finetune`.

    Args:
        state: of the run.
        stage: `warmup` or `finetune`.
        objective: what to minimize.
        prepare: makes what the model sees of a batch, on the device: augments and mixes by its
            `draws`; None if there is nothing to do.
    """
    classifier, seed = state.classifier, objective.options.seed
    gradients_of = steps.warmup_gradients if stage == "warmup" else steps.finetune_gradients
    groups = trained_groups(state, stage)

    def gradients(batch: steps.Batch) -> tuple[list[tf.Tensor], steps.StepResult]:
        if prepare:
            batch = prepare(batch)
        dropout_seed = tf.stack([tf.constant(seed, tf.int32), tf.cast(state.step, tf.int32)])
        scale = None if state.loss_scale is None else tf.identity(state.loss_scale.value)
        return gradients_of(classifier, batch, dropout_seed, objective, scale)

    def update(of: list[tf.Tensor]) -> None:
        for optimizer, variables in groups:
            steps.apply_gradients(optimizer, of[: len(variables)], variables)
            of = of[len(variables) :]
        if state.averages is not None:
            state.averages.update()

    return ReplicaStep(gradients, update, [v for _, group in groups for v in group])


def trained_groups(
    state: TrainState, stage: str
) -> list[tuple[optimizers.Optimizer, list[tf.Variable]]]:
    """Returns the optimizers of a stage with what each trains; the backbone comes before the head.

    All variables together are in the order in which the step gives their gradients.
    """
    classifier = state.classifier
    if stage == "warmup":
        return [(state.warmup_optimizer, classifier.head.trainable_variables)]
    if state.backbone_optimizer is None:
        return [(state.finetune_optimizer, steps.trained_in_finetuning(classifier))]
    return [
        (state.backbone_optimizer, classifier.features.trainable_variables),
        (state.finetune_optimizer, classifier.head.trainable_variables),
    ]


def whole_step(step: ReplicaStep, state: TrainState) -> Callable[[steps.Batch], steps.StepResult]:
    """Returns both parts of a step as one function of a batch, which counts the step too."""

    def whole(batch: steps.Batch) -> steps.StepResult:
        gradients, result = step.gradients(batch)
        step.update(gradients)
        state.step.assign_add(1)  # the first replica's counts
        return result

    return whole


def compile_train_steps(
    strategy: tf.distribute.Strategy,
    state: TrainState,
    stage: str,
    objective: steps.Objective,
    prepare: Prepare | None = None,
) -> Callable[[Iterator, tf.Tensor], Results]:
    """Returns `train_steps(iterator, num_steps)`, which trains many steps in one call.

    `num_steps` is an int32 tensor (a Python number would be traced anew each time). The loop counts
    and looks at nothing else, so that no step waits until the one before is done: on a GPU the
    condition of a loop lives in the host's memory, on a TPU the loop is the host's. What a step
    found is written beside its outcomes. A step whose loss or gradients are not finite spoils the
    weights, and with them all later steps of the call.

    Only an objective that skips bad steps has a condition, and float16 with its scale of the loss:
    the update then waits for the last of the gradients to be looked at, and such a step leaves
    weights and slots as they were.

    Args:
        strategy: runs the steps.
        state: see `replica_step`, as for the arguments that follow.
        stage: `warmup` or `finetune`.
        objective: what to minimize.
        prepare: on the device, or None.
    """
    step = replica_step(state, stage, objective, prepare)
    whole = whole_step(step, state)

    def do_step(batch):
        return strategy.run(whole, args=(batch,))

    def do_step_unless_bad(batch):
        gradients, result = strategy.run(step.gradients, args=(batch,))
        updates = _local(strategy, result.updates)
        if updates:
            strategy.run(step.update, args=(gradients,))
        if state.loss_scale is not None:
            state.loss_scale.update(updates)
        state.step.assign_add(1)
        return result

    may_leave_out = objective.skips_bad_steps or state.loss_scale is not None
    do = do_step_unless_bad if may_leave_out else do_step

    @tf.function
    def train_steps(iterator, num_steps):
        outcomes = tf.TensorArray(tf.float32, num_steps)
        norms = tf.TensorArray(tf.float32, num_steps)
        finite = tf.TensorArray(tf.bool, num_steps)
        updates = tf.TensorArray(tf.bool, num_steps)
        waits = tf.TensorArray(tf.float32, num_steps)
        done = _time()
        for number in tf.range(num_steps):
            batch = next(iterator)
            wait = tf.maximum(_time_of(strategy, batch) - done, 0)
            waits = waits.write(number, tf.cast(wait, tf.float32))
            result = do(batch)
            done = _time_of(strategy, result)
            outcomes = outcomes.write(number, _joined(strategy, result.outcomes))
            norms = norms.write(number, _local(strategy, result.gradient_norm))
            finite = finite.write(number, _local(strategy, result.finite))
            updates = updates.write(number, _local(strategy, result.updates))
        rows = _of_all_workers(strategy, outcomes.stack())
        return Results(*(rows, norms.stack(), finite.stack(), updates.stack(), waits.stack()))

    return train_steps


def compile_eval_steps(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator, tf.Tensor], tf.Tensor]:
    """Returns `eval_steps(iterator, num_steps)`: `[steps, global batch, metrics.COLUMNS]`."""

    @tf.function
    def eval_steps(iterator, num_steps):
        outcomes = tf.TensorArray(tf.float32, num_steps)
        for number in tf.range(num_steps):
            rows = strategy.run(lambda b: steps.eval_step(model, b), args=(next(iterator),))
            outcomes = outcomes.write(number, _joined(strategy, rows))
        return _of_all_workers(strategy, outcomes.stack())

    return eval_steps


def compile_predict_step(
    strategy: tf.distribute.Strategy, model: tf.keras.Model
) -> Callable[[Iterator], tf.Tensor]:
    """Returns `predict(iterator)`: the next global batch's logits, `[global batch, classes]`."""

    @tf.function
    def predict(iterator):
        logits = strategy.run(lambda b: steps.predict_step(model, b), args=(next(iterator),))
        return _of_all_workers(strategy, _joined(strategy, logits)[tf.newaxis])[0]

    return predict


def _local(strategy: tf.distribute.Strategy, value) -> tf.Tensor:
    """A value that is equal on every replica."""
    return strategy.experimental_local_results(value)[0]


def _time_of(strategy: tf.distribute.Strategy, values) -> tf.Tensor:
    """When values are there on all replicas, float64 seconds since 1970; nothing waits for it."""
    with tf.control_dependencies(tf.nest.flatten(strategy.experimental_local_results(values))):
        return _time()


def _time() -> tf.Tensor:
    """Seconds since 1970, float64; 0 where all is to be deterministic, which no clock is."""
    return tf.zeros([], tf.float64) if is_op_determinism_enabled() else tf.timestamp()


def _of_all_workers(strategy: tf.distribute.Strategy, rows: tf.Tensor) -> tf.Tensor:
    """Those of all workers, one after the other: `[steps, rows, columns]` -> `[steps, all, …]`.

    Once for all steps of a call, so that no step waits for it. Every replica takes part in what the
    workers exchange, and has the rows of all replicas of its worker.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return rows

    def gathered() -> tf.Tensor:
        on_its_device = tf.identity(rows)
        return tf.distribute.get_replica_context().all_gather(on_its_device, axis=1)

    of_replicas = _local(strategy, strategy.run(gathered))
    own, (steps, count, columns) = len(strategy.extended.worker_devices), tf.unstack(tf.shape(rows))
    return tf.reshape(
        tf.reshape(of_replicas, [steps, -1, own, count, columns])[:, :, 0], [steps, -1, columns]
    )


def _joined(strategy: tf.distribute.Strategy, values) -> tf.Tensor:
    """The replicas' parts of a global batch, one after the other, of this worker."""
    return tf.concat(strategy.experimental_local_results(values), axis=0)
