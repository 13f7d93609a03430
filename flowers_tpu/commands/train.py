"""Trains a flower classifier, evaluates it and writes a submission.

    python scripts/train.py --tpu=local --flagfile=scripts/flagfiles/quickstart.flags

Running the same command again continues an interrupted run. At the end, plots/ and report.html in
the run's folder show how it went; --noreport leaves them out.
"""

import math
import time
from collections.abc import Iterator

import pandas as pd
from absl import logging

from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.monitor import console, tensorboard
from flowers_tpu.monitor.pictures import Pictures
from flowers_tpu.monitor.profile import Profile
from flowers_tpu.monitor.watchers import Epoch, Watcher, Watchers
from flowers_tpu.runs import report
from flowers_tpu.runs.boundary import EvaluationBoundary, TrainingBoundary
from flowers_tpu.runs.environment import environment
from flowers_tpu.runs.feed import Feed, iterate
from flowers_tpu.runs.folder import HISTORY, SCORES, SUBMISSION, TIMING, RunFolder, opened
from flowers_tpu.runs.opening import continued, list_bad_records
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.results import Trained, predict_test, score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RunError, StoppedError
from flowers_tpu.system.signals import Signals
from flowers_tpu.training import calls, metrics, multistep
from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.history import make_row
from flowers_tpu.training.pacing import Pacer
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState


def train(given: Spec) -> None:
    """Trains, or continues, a run; then evaluates it and predicts the test split."""
    if given.run.tensorboard:
        tensorboard.check_installed()
    check_backbone(given.model.backbone, image_size=given.data.image_size, alpha=given.model.alpha)
    with opened(given.run.run_dir) as folder:
        recipe = Recipe.choose(given)
        if folder.is_run() and not given.run.overwrite:
            recipe = continued(folder, recipe)
            if folder.is_finished():
                show_finished(folder, recipe)
                return
        data = recipe.load_data()
        feed = Feed(recipe, data.splits)
        feed.check_cache()
        plan = recipe.plan(data)
        state = recipe.state(plan)
        if given.run.overwrite:
            folder.remove()
        if not folder.is_run():
            folder.begin(given, recipe.resolved, environment(recipe.facts))
        list_bad_records(folder, recipe, data, as_begun=True)
        checkpoints = Checkpoints(folder.checkpoints, state)
        resumed = checkpoints.restore_latest()
        print_plan(recipe, feed, plan, state)
        if resumed:
            console.print_resumed(plan, state)
        trained = Trained(folder, data, feed, state.classifier)
        with Signals() as signals, recipe.naming_bad_records(data):
            fit(trained, plan, state, checkpoints, signals)
            if not checkpoints.restore_best():
                terminal.say("No epoch of fine-tuning: the last weights are evaluated.")
            predict_test(trained, signals)
            # The scores come after all other results: they say that a run is finished.
            folder.write_json(SCORES, score_splits(trained, signals))
            report.report(recipe, folder, data.splits, signals)
        print_scores(folder)


def fit(
    trained: Trained,
    plan: Plan,
    state: TrainState,
    checkpoints: Checkpoints,
    signals: Signals,
) -> None:
    """Trains from where the state is to the end of the plan, or until it stops improving.

    Every epoch ends with a validation, a row of the history and a checkpoint. What a stop leaves is
    a state between two steps; calling this again goes on from there.

    Raises:
        StoppedError: a signal came; the state is saved.
        RunError: loss or gradients are not finite (and `--on_nan` says stop); the last checkpoint
            is sound.
    """
    feed, folder, history = trained.feed, trained.folder, state.progress.history
    val = trained.data.splits["val"]
    strategy = feed.recipe.strategy
    eval_steps = multistep.compile_eval_steps(strategy, state.classifier.model)
    boundary = TrainingBoundary(signals, feed.recipe.spec.run)
    stage, iterator, val_batches = None, None, None
    with Watchers(watchers(trained, plan, state)) as watching:
        while not plan.finished(history):
            epoch, begin = len(history), time.monotonic()
            step = int(state.step.numpy())
            if plan.schedule.stage(epoch) != stage:
                stage, pacer = plan.schedule.stage(epoch), Pacer(plan.training.steps_per_loop)
                train_steps = multistep.compile_train_steps(
                    strategy, state, stage, plan.objective, feed.augment_on_device
                )
            if iterator is None and step < (epoch + 1) * plan.steps_per_epoch:
                iterator = iterate(feed.train_batches(step, len(plan.rates)))
            for call in calls.train_epoch(train_steps, iterator, plan, state, boundary, pacer):
                stop_or_skip(call, plan, feed)
                if call.decision.save:
                    checkpoints.save_latest()
                    boundary.saved()
                if call.decision.stop:
                    raise_stopped()
                watching.on_call(call)

            trained_at = time.monotonic()
            val_batches = val_batches or feed.eval_batches(feed.val_source)
            for evaluated in calls.evaluate(
                *(eval_steps, iterate(val_batches), feed.eval_steps(val), plan.num_classes),
                EvaluationBoundary(signals),
            ):
                if evaluated.decision.stop:
                    checkpoints.save_latest()
                    raise_stopped()
                watching.on_validation(evaluated)
            validated_at = time.monotonic()

            row = make_row(
                epoch=epoch,
                stage=stage,
                steps_per_epoch=plan.steps_per_epoch,
                learning_rate=float(plan.rates[(epoch + 1) * plan.steps_per_epoch - 1]),
                train=metrics.scores(state.progress.sums),
                val=metrics.scores(evaluated.sums),
                skipped=state.progress.skipped,
            )
            history.append(row)
            state.progress.sums = metrics.empty(plan.num_classes)
            is_best = plan.best_row(history) is row
            if is_best:
                checkpoints.save_best(epoch + 1)
            checkpoints.save_latest()
            boundary.saved()
            photos = (row["step"] - step) * plan.photos_per_step
            times = epoch_times(
                epoch, trained_at - begin, validated_at - trained_at, photos, val.size
            )
            folder.write_table(HISTORY, pd.DataFrame(history))
            timing = folder.read_table(TIMING)
            folder.write_table(TIMING, pd.concat([timing, pd.DataFrame([times])]))
            watching.on_epoch(
                Epoch(history, times, evaluated.sums["confusion"], is_best, plan.finished(history))
            )
    # A run that was killed between its last checkpoint and this table is finished all the same.
    folder.write_table(HISTORY, pd.DataFrame(history))


def stop_or_skip(call: calls.Call, plan: Plan, feed: Feed) -> None:
    """Warns of steps that were left out; or raises RunError, and nothing is saved any more."""
    for bad in call.bad_steps:
        problem = (
            f"step {bad.step} (epoch {bad.step // plan.steps_per_epoch + 1}): loss or gradients "
            f"are not finite (rate {bad.learning_rate:.3g}, gradient norm {bad.gradient_norm}, "
            f"photos {', '.join(feed.ids_of_step(bad.step))})"
        )
        if not plan.objective.skips_bad_steps:
            raise RunError(
                f"{problem}. The last checkpoint is sound. Try a lower --learning_rate, "
                "--clip_norm=1, --precision=float32, or --on_nan=skip"
            )
        logging.warning("%s; skipped", problem)


def raise_stopped() -> None:
    """Ends the command as one that a signal has stopped."""
    raise StoppedError("stopped; the same command continues")


def epoch_times(
    epoch: int, train_seconds: float, val_seconds: float, photos: int, val_photos: int
) -> dict[str, float]:
    """Returns a row of `timing.csv`; photos/s are NaN if all steps had been done before."""
    return {
        "epoch": epoch + 1,
        "train_seconds": train_seconds,
        "train_images_per_second": photos / train_seconds if photos else math.nan,
        "val_seconds": val_seconds,
        "val_images_per_second": val_photos / val_seconds,
    }


def watchers(trained: Trained, plan: Plan, state: TrainState) -> Iterator[Watcher]:
    """Yields who watches a run."""
    recipe, folder, val = trained.feed.recipe, trained.folder, trained.data.splits["val"]
    options, step = recipe.spec.run, int(state.step.numpy())
    yield console.Lines(plan)
    if options.tensorboard:
        times = {row["epoch"]: row for row in folder.read_table(TIMING).to_dict("records")}
        board = tensorboard.Board(
            *(folder.file("tensorboard"), step),
            *(recipe.spec.exactly(recipe.resolved).flat(), state.progress.history, times),
        )
        yield board
        yield Pictures(
            *(board, val, recipe.spec.data.image_size, trained.data.class_names),
            *(plan.training.seed, trained.logits_of_few),
        )
    if options.profiled_steps:
        yield Profile(folder.file("tensorboard"), options.profiled_steps, step)
    # Last, so that the clock of the next bar begins after what the others do.
    yield console.Bars(plan, val.size, step, state.progress.history)


def print_plan(recipe: Recipe, feed: Feed, plan: Plan, state: TrainState) -> None:
    """Prints the numbers of a run before it begins."""
    data = recipe.spec.data
    console.print_plan(
        devices=str(recipe.facts),
        arithmetic=recipe.resolved.arithmetic,
        data=f"{data.data_dir}, {plan.num_classes} classes, {data.image_size} px",
        photos={name: split.size for name, split in feed.splits.items()},
        photos_per_replica=recipe.photos_per_replica,
        model=recipe.spec.model.backbone,
        run=recipe.spec.run.run_dir,
        plan=plan,
        classifier=state.classifier,
    )
    if recipe.spec.run.summary:
        console.print_layers(state.classifier)


def show_finished(folder: RunFolder, recipe: Recipe) -> None:
    """Prints the scores of a run that is finished; draws its report if it has none."""
    terminal.say(f"{folder.path} is finished; --overwrite begins anew.")
    # Left out before, or killed while it was drawn.
    if recipe.spec.run.report and not folder.has(report.REPORT):
        with Signals() as signals:
            report.report(recipe, folder, {}, signals)
    print_scores(folder)


def print_scores(folder: RunFolder) -> None:
    """Prints the scores of a run."""
    console.print_scores(
        folder.read_json(SCORES),
        folder.path,
        predicted=folder.has(SUBMISSION),
        drawn=folder.has(report.REPORT),
    )
