"""The epochs around the compiled functions: train, validate, keep the best, save, stop."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from flowers_tpu import progress
from flowers_tpu.errors import RunError, StoppedError
from flowers_tpu.interruption import Interruption
from flowers_tpu.training import early_stopping, metrics, steps
from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.state import Progress, TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is going to do, in numbers.

    Attributes:
        num_classes: classes.
        global_batch_size: photos per step.
        steps_per_epoch: training photos // global batch.
        warmup_epochs: epochs of the head alone; they come first.
        epochs: most epochs of all layers.
        rates: `[(warmup_epochs + epochs) * steps_per_epoch]` float32, the rate of every step.
        early_stopping_patience: see `early_stopping.should_stop`.
        seed: of dropout.
        objective: what to minimize.
        steps_per_loop: steps per compiled call; 0: chosen by time.
        checkpoint_every_steps: save also within epochs; 0: not.
        checkpoint_every_seconds: save also when the last save is so long ago; 0: not.
        on_nan: `stop` or `skip`: what to do about a step that is not finite.
    """

    num_classes: int
    global_batch_size: int
    steps_per_epoch: int
    warmup_epochs: int
    epochs: int
    rates: np.ndarray
    early_stopping_patience: int
    seed: int
    objective: steps.Objective
    steps_per_loop: int = 0
    checkpoint_every_steps: int = 0
    checkpoint_every_seconds: float = 0.0
    on_nan: str = "stop"

    def stage(self, epoch: int) -> str:
        """`warmup` or `finetune`."""
        return "warmup" if epoch < self.warmup_epochs else "finetune"


class Call(NamedTuple):
    """What a compiled call of training steps came to.

    Attributes:
        step: steps done in the run.
        learning_rate: of its last step.
        loss: the mean over the epoch so far.
        gradient_norm: of its last step, before clipping.
        images_per_second: NaN for the first call of a stage, which compiles.
    """

    step: int
    learning_rate: float
    loss: float
    gradient_norm: float
    images_per_second: float


def evaluate(
    eval_steps: Callable[[Iterator, tf.Tensor], tf.Tensor],
    iterator: Iterator,
    num_steps: int,
    num_classes: int,
    *,
    on_steps: Callable[[int], None],
    interruption: Interruption,
) -> metrics.Sums:
    """Returns the sums of one pass over a split; see `metrics.scores`.

    Args:
        eval_steps: see `compiled.compile_eval_steps`.
        iterator: over the split, the last batch filled up with weight 0.
        num_steps: global batches of the split.
        num_classes: classes.
        on_steps: called with the number of steps done since it was last called.
        interruption: polled between compiled calls.
    """
    pacer = Pacer()
    sums, done = metrics.empty(num_classes), 0
    while done < num_steps:
        count = pacer.steps(num_steps - done)
        with pacer.timed(count):
            sums = metrics.added(sums, eval_steps(iterator, tf.constant(count, tf.int32)).numpy())
        done += count
        on_steps(count)
        interruption.check()
    return sums


def fit(
    *,
    plan: Plan,
    state: TrainState,
    checkpoints: Checkpoints,
    train_steps: Callable[[str], Callable],
    train_iterator: Callable[[int], Iterator],
    validate: Callable[[], dict[str, float]],
    on_steps: Callable[[Call], None],
    on_epoch: Callable[[list[dict], dict[str, float]], None],
    ids_of_step: Callable[[int], list[str]],
    interruption: Interruption,
    stops: Sequence[int] = (),
) -> None:
    """Trains from where `state` is to the end of the plan, or until it stops improving.

    Every epoch ends with a validation, a row of the history and a checkpoint. What an interruption
    leaves is a state between two steps; calling this again goes on from there.

    Args:
        plan: what to do.
        state: restored or new; changed in place.
        checkpoints: where it is saved.
        train_steps: gives the compiled function of a stage; see `compile_train_steps`.
        train_iterator: gives the batches from a step on.
        validate: gives the scores of the validation split.
        on_steps: called after each compiled call.
        on_epoch: called with the history and the times of the epoch that ended; its images/s are
            NaN where all its steps had been done before this call.
        ids_of_step: tells which photos a step saw, for messages.
        interruption: polled between compiled calls.
        stops: steps of the run at which a compiled call ends, however many it would do.

    Raises:
        StoppedError: a signal came; the state is saved.
        RunError: loss or gradients are not finite (and `plan.on_nan` says stop); the last
            checkpoint is sound.
    """
    run = state.progress
    iterator, function, stage = None, None, None
    pacer, saved_at = Pacer(plan.steps_per_loop), time.monotonic()
    while not finished(plan, run.history):
        epoch = len(run.history)
        if plan.stage(epoch) != stage:
            stage = plan.stage(epoch)
            function, pacer = train_steps(stage), Pacer(plan.steps_per_loop)
        begin, photos = time.monotonic(), 0
        epoch_end = (epoch + 1) * plan.steps_per_epoch
        step = int(state.step.numpy())
        with progress.bar(
            plan.steps_per_epoch * plan.global_batch_size,
            _title(plan, epoch),
            initial=(step - epoch * plan.steps_per_epoch) * plan.global_batch_size,
        ) as bar:
            while step < epoch_end:
                iterator = iterator or train_iterator(step)
                stop = _next_stop(plan, step, epoch_end, stops)
                count, before = pacer.steps(stop - step), step
                with pacer.timed(count):
                    outcomes, norm, finite = function(iterator, tf.constant(count, tf.int32))
                    run.sums = metrics.added(run.sums, outcomes.numpy())
                if not finite:
                    _skip_or_stop(plan, state, float(norm), ids_of_step)
                step = int(state.step.numpy())
                photos += (step - before) * plan.global_batch_size
                call = _call(plan, step, run.sums, float(norm), pacer.step_seconds)
                bar.set_postfix(loss=f"{call.loss:.4f}")
                bar.update((step - before) * plan.global_batch_size)
                on_steps(call)
                if interruption.requested:
                    checkpoints.save_latest()
                    interruption.check()
                if step < epoch_end and _save_is_due(plan, step, saved_at):
                    checkpoints.save_latest()
                    saved_at = time.monotonic()
        trained = time.monotonic()
        try:
            val_scores = validate()
        except StoppedError:
            checkpoints.save_latest()
            raise
        validated = time.monotonic()
        row = _history_row(plan, epoch, run, val_scores)
        run.history.append(row)
        run.sums = metrics.empty(plan.num_classes)
        if best_row(plan, run.history) is row:
            checkpoints.save_best(epoch + 1)
        checkpoints.save_latest()
        saved_at = time.monotonic()
        seconds = trained - begin
        times = {
            "epoch": epoch + 1,
            "train_seconds": seconds,
            "train_images_per_second": photos / seconds if photos else math.nan,
            "val_seconds": validated - trained,
        }
        on_epoch(run.history, times)


def best_row(plan: Plan, history: list[dict]) -> dict | None:
    """Returns the row of the epoch of fine-tuning with the lowest validation loss, or None."""
    rows = history[plan.warmup_epochs :]
    best = early_stopping.best_epoch([row["val_loss"] for row in rows])
    return None if best is None else rows[best]


def finished(plan: Plan, history: list[dict]) -> bool:
    """Whether all epochs are done, or fine-tuning has stopped improving."""
    losses = [row["val_loss"] for row in history[plan.warmup_epochs :]]
    return len(history) >= plan.warmup_epochs + plan.epochs or early_stopping.should_stop(
        losses, plan.early_stopping_patience
    )


def _next_stop(plan: Plan, step: int, epoch_end: int, stops: Sequence[int]) -> int:
    """The step at which the next compiled call ends at the latest."""
    every = plan.checkpoint_every_steps
    saved = (step // every + 1) * every if every else epoch_end
    return min(epoch_end, saved, *(stop for stop in stops if stop > step))


def _save_is_due(plan: Plan, step: int, saved_at: float) -> bool:
    steps, seconds = plan.checkpoint_every_steps, plan.checkpoint_every_seconds
    return bool(
        (steps and step % steps == 0) or (seconds and time.monotonic() - saved_at >= seconds)
    )


def _call(plan: Plan, step: int, sums: metrics.Sums, norm: float, step_seconds: float) -> Call:
    return Call(
        step,
        learning_rate=float(plan.rates[step - 1]),
        loss=metrics.scores(sums)["loss"],
        gradient_norm=norm,
        images_per_second=plan.global_batch_size / step_seconds,
    )


def _history_row(plan: Plan, epoch: int, run: Progress, val_scores: dict[str, float]) -> dict:
    begin, end = (number * plan.steps_per_epoch for number in (epoch, epoch + 1))
    return {
        "epoch": epoch + 1,
        "stage": plan.stage(epoch),
        "step": end,
        "learning_rate": float(plan.rates[end - 1]),
        **metrics.scores(run.sums),
        **{f"val_{name}": value for name, value in val_scores.items()},
        "skipped_steps": sum(begin <= step < end for step in run.skipped),
    }


def _title(plan: Plan, epoch: int) -> str:
    return f"epoch {epoch + 1}/{plan.warmup_epochs + plan.epochs} {plan.stage(epoch)}"


_NOT_FINITE_HINT = (
    "The last checkpoint is sound. Try a lower --learning_rate, "
    "--clip_norm=1, --precision=float32, or --on_nan=skip"
)


def _skip_or_stop(
    plan: Plan, state: TrainState, norm: float, ids_of_step: Callable[[int], list[str]]
) -> None:
    """Moves on from the step at which a compiled call ended, or raises."""
    step = int(state.step.numpy())
    ids = ", ".join(ids_of_step(step))
    problem = (
        f"step {step} (epoch {step // plan.steps_per_epoch + 1}): loss or gradients are not finite "
        f"(rate {plan.rates[step]:.3g}, gradient norm {norm}, photos {ids})"
    )
    if plan.on_nan == "stop":
        raise RunError(f"{problem}. {_NOT_FINITE_HINT}")
    logging.warning("%s; skipped", problem)
    state.progress.skipped.append(step)
    state.step.assign(step + 1)
