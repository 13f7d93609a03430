"""The loop of a run: for each epoch calls, validation, its row and saves; then watchers see it."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from absl import logging

from flowers_tpu.data import source
from flowers_tpu.monitor import console, tensorboard, trackers
from flowers_tpu.monitor.pictures import Pictures
from flowers_tpu.monitor.profile import Profile
from flowers_tpu.monitor.watchers import Epoch, Watcher, Watchers
from flowers_tpu.runs import features
from flowers_tpu.runs.boundary import AsksToStop, EvaluationBoundary, TrainingBoundary
from flowers_tpu.runs.feed import Batches, Feed
from flowers_tpu.runs.folder import HISTORY, TIMING
from flowers_tpu.runs.goodput import Goodput
from flowers_tpu.runs.results import Trained
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import workers
from flowers_tpu.system.errors import RunError, StoppedError
from flowers_tpu.training import calls, metrics, multistep
from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.history import Row, make_row
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState


def fit(
    trained: Trained,
    plan: Plan,
    state: TrainState,
    checkpoints: Checkpoints,
    boundary: TrainingBoundary,
    goodput: Goodput,
) -> None:
    """Trains from where the state is until the plan ends, nothing improves, or the time is up.

    Every epoch ends with a validation, if there are photos for it, a row of the history and a
    checkpoint. What a stop leaves is a state between two steps; calling this again goes on there.

    Raises:
        StoppedError: a signal came; the state is saved.
        RunError: loss or gradients are not finite (and `--on_nan` says stop), or a validation's
            loss; what is saved is sound.
    """
    feed, folder, history = trained.feed, trained.folder, state.progress.history
    stage, saved_step = "", int(state.step.numpy())
    with Watchers(watchers(trained, plan, state)) as watching:
        while not plan.finished(history):
            epoch, begin, waited = len(history), time.monotonic(), 0.0
            step = int(state.step.numpy())
            if plan.schedule.stage(epoch) != stage:
                stage, pacer = plan.schedule.stage(epoch), Pacer(plan.training.steps_per_loop)
                work = work_of(stage, feed, plan, state, boundary.signals)
                iterator = val_batches = None
            if iterator is None and step < (epoch + 1) * plan.steps_per_epoch:
                iterator = iter(work.train_batches(step))
            goodput.starts()
            for call in calls.train_epoch(work.train_steps, iterator, plan, state, boundary, pacer):
                stop_or_skip(call, plan, feed, checkpoints, saved_step)
                goodput.add(call)
                waited += call.input_seconds
                if call.decision.save:
                    save(checkpoints, boundary, goodput)
                    saved_step = call.step
                if call.decision.stop == "signal":
                    raise_stopped()
                watching.on_call(call)
                if call.decision.stop:
                    return

            trained_at = time.monotonic()
            val_size, evaluated = 0, None
            if plan.validates:
                val_size = trained.data.splits["val"].size
                val_batches = val_batches or work.val_batches()
                with goodput.spent_on("validation"), state.averaged():
                    evaluated = validate(
                        *(work, val_batches, feed.eval_steps(trained.data.splits["val"]), plan),
                        *(boundary, watching),
                    )
                if evaluated.decision.stop:
                    save(checkpoints, boundary, goodput)
                    raise_stopped()
            validated_at = time.monotonic()
            new_photos = ((epoch + 1) * plan.steps_per_epoch - step) * plan.photos_per_step
            # By what a photo took in validation; without one, in training.
            seconds, photos = validated_at - trained_at, val_size
            if not plan.validates:
                seconds, photos = trained_at - begin, max(1, new_photos)
            every = sum(split.size for split in trained.data.splits.values())
            boundary.reserve_for_scores(every, seconds / photos)

            row = make_row(
                epoch=epoch,
                stage=stage,
                steps_per_epoch=plan.steps_per_epoch,
                learning_rate=float(plan.rates[(epoch + 1) * plan.steps_per_epoch - 1]),
                train=metrics.scores(state.progress.sums),
                val=metrics.scores(evaluated.sums) if evaluated else None,
                skipped=state.progress.skipped,
            )
            if plan.validates:
                stop_if_not_finite(row, plan)
            row["kept"] = plan.is_best(row, history)
            history.append(row)
            state.progress.sums = metrics.empty(plan.num_classes)
            if row["kept"]:
                with goodput.spent_on("checkpoint"), state.averaged():
                    checkpoints.save_best(epoch + 1)
            save(checkpoints, boundary, goodput)
            saved_step = row["step"]
            times = epoch_times(
                *(epoch, trained_at - begin, waited, validated_at - trained_at),
                *(new_photos, val_size),
            )
            folder.write_table(HISTORY, pd.DataFrame(history))
            timing = folder.read_table(TIMING)
            folder.write_table(TIMING, pd.concat([timing, pd.DataFrame([times])]))
            epoch_ended = Epoch(
                *(history, times, evaluated and evaluated.sums["confusion"], row["kept"]),
                plan.finished(history),
            )
            with state.averaged():
                watching.on_epoch(epoch_ended)
    # A run that was killed between its last checkpoint and this table is finished all the same.
    folder.write_table(HISTORY, pd.DataFrame(history))


def save(checkpoints: Checkpoints, boundary: TrainingBoundary, goodput: Goodput) -> None:
    """Saves the state as it is between two calls."""
    with goodput.spent_on("checkpoint"):
        checkpoints.save_latest()
    boundary.saved()
    goodput.write()


def validate(
    work: "Work",
    batches: Batches,
    num_steps: int,
    plan: Plan,
    boundary: TrainingBoundary,
    watching: Watchers,
) -> calls.EvalCall:
    """Validates, until a signal comes; returns the last call, with the sums of all before it."""
    for evaluated in calls.evaluate(
        *(work.eval_steps, iter(batches), num_steps, plan.num_classes),
        EvaluationBoundary(boundary.signals, boundary.agree),
    ):
        if evaluated.decision.stop:
            break
        watching.on_validation(evaluated)
    return evaluated


class Work(NamedTuple):
    """What a stage of training does, and on what.

    Attributes:
        train_steps: see `multistep.compile_train_steps`.
        eval_steps: see `multistep.compile_eval_steps`.
        train_batches: gives the batches of a step of the run and those after it, of this stage.
        val_batches: gives those of a validation.
    """

    train_steps: Callable
    eval_steps: Callable
    train_batches: Callable[[int], Batches]
    val_batches: Callable[[], Batches]


def work_of(stage: str, feed: Feed, plan: Plan, state: TrainState, signals: AsksToStop) -> Work:
    """Prepares a stage, `warmup` or `finetune`; see `features.work_out` for what it may raise."""
    strategy, classifier = feed.recipe.strategy, state.classifier
    epochs = plan.schedule.warmup_epochs if stage == "warmup" else plan.schedule.total_epochs
    end = epochs * plan.steps_per_epoch
    if stage == "warmup" and plan.schedule.warmup_on == "features":
        known = features.work_out(feed, classifier, signals)
        val: Any = None  # of a run that does not validate, and that asks for none
        if known.val is not None:
            val = source.from_features(feed.splits["val"], known.val)
        return Work(
            multistep.compile_train_steps(strategy, state, stage, plan.objective),
            multistep.compile_eval_steps(strategy, classifier.head),
            lambda step: feed.feature_batches(known.train, step, end),
            lambda: feed.eval_batches(val),
        )
    return Work(
        multistep.compile_train_steps(strategy, state, stage, plan.objective, feed.prepare),
        multistep.compile_eval_steps(strategy, classifier.evaluated),
        lambda step: feed.train_batches(step, end),
        lambda: feed.eval_batches(feed.val_source),
    )


def stop_or_skip(
    call: calls.Call, plan: Plan, feed: Feed, checkpoints: Checkpoints, saved_step: int
) -> None:
    """Warns of steps that were left out; or raises RunError, and nothing is saved any more.

    Weights whose very first step is not finite are not sound, though they may be themselves: such a
    checkpoint goes, so that the run can go on from the one before.
    """
    for bad in call.bad_steps:
        problem = (
            f"step {bad.step} (epoch {bad.step // plan.steps_per_epoch + 1}): loss or gradients "
            f"are not finite (rate {bad.learning_rate:.3g}, gradient norm {bad.gradient_norm}, "
            f"photos {', '.join(feed.ids_of_step(bad.step))})"
        )
        if plan.objective.skips_bad_steps:
            logging.warning("%s; skipped", problem)
            continue
        what_is_saved = "The last checkpoint is sound"
        if not checkpoints.has_latest():
            what_is_saved = "Nothing is saved yet"
        elif bad.step == saved_step:
            before = checkpoints.drop_latest()
            what_is_saved = (
                f"The checkpoint of step {saved_step}, whose first step this was, is removed; "
                + ("the one before it is sound" if before else "there is none before it")
            )
        raise RunError(f"{problem}. {what_is_saved}. {advice(feed.recipe.spec)}")


def stop_if_not_finite(row: Row, plan: Plan) -> None:
    """Raises RunError if the loss of a validation is not finite: its weights are of no use."""
    if not math.isfinite(row["val_loss"]):
        raise RunError(
            f"epoch {row['epoch']}: the validation loss is {row['val_loss']}: the weights have "
            "grown beyond all bounds. What is saved is from before it. A lower rate helps: "
            "begin another run with a lower --learning_rate, or --clip_norm=1"
        )


def advice(spec: Spec) -> str:
    """What to do after a step that is not finite: what is said works when it is followed."""
    run = spec.run.run_dir
    return (
        "The same command with --on_nan=skip leaves such steps out. A lower rate, --clip_norm=1 or "
        "--precision=float32 take another run, which can begin with the weights of this one: "
        f"--run_dir=ANOTHER --from_run={run}@latest --learning_rate=LOWER"
    )


def raise_stopped() -> None:
    """Ends the command as one that a signal has stopped."""
    raise StoppedError("stopped; the same command continues")


def epoch_times(
    epoch: int,
    train_seconds: float,
    input_seconds: float,
    val_seconds: float,
    photos: int,
    val_photos: int,
) -> dict[str, float]:
    """Returns a row of `timing.csv`; photos/s are NaN if all steps had been done before."""
    return {
        "epoch": epoch + 1,
        "train_seconds": train_seconds,
        "input_seconds": input_seconds,
        "train_images_per_second": photos / train_seconds if photos else math.nan,
        "val_seconds": val_seconds,
        "val_images_per_second": val_photos / val_seconds if val_photos else math.nan,
    }


def trackers_of(trained: Trained, state: TrainState) -> Iterator[Watcher]:
    """Yields who keeps a record of a run elsewhere."""
    recipe, folder = trained.feed.recipe, trained.folder
    if recipe.spec.run.track != "none":
        flags = recipe.spec.exactly(recipe.resolved).flat()
        kind = trackers.TRACKERS[recipe.spec.run.track]
        yield kind(folder.path, flags, state.progress.history)


def watchers(trained: Trained, plan: Plan, state: TrainState) -> Iterator[Watcher]:
    """Yields who watches a run; of several workers only the chief is watched."""
    if not workers.may_write():
        return
    recipe, folder = trained.feed.recipe, trained.folder
    val = trained.data.splits.get("val")
    options, step = recipe.spec.run, int(state.step.numpy())
    yield console.Lines(plan)
    if options.tensorboard:
        times = {row["epoch"]: row for row in folder.read_table(TIMING).to_dict("records")}
        board = tensorboard.Board(
            *(folder.file("tensorboard"), step),
            *(recipe.spec.exactly(recipe.resolved).flat(), state.progress.history, times),
        )
        yield board
        # Which of several workers would have to draw at the same moment, by their own clocks.
        if val and not workers.this_cluster():
            yield Pictures(
                *(board, val, recipe.spec.data.evaluation_size, trained.data.class_names),
                *(plan.training.seed, trained.logits_of_few),
            )
    yield from trackers_of(trained, state)
    if options.profiled_steps:
        yield Profile(folder.file("tensorboard"), options.profiled_steps, step)
    # Last, so that the clock of the next bar begins after what the others do.
    yield console.Bars(plan, val.size if val else 0, step, state.progress.history)
