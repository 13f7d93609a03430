"""Trains a flower classifier, evaluates it and writes a submission.

    python scripts/train.py --tpu=local --flagfile=scripts/flagfiles/quickstart.flags

Running the same command again continues an interrupted run. At the end, plots/ and report.html in
the run's folder show how it went; --noreport leaves them out.
"""

import time

from absl import logging

from flowers_tpu.data import records
from flowers_tpu.models.backbones import check_backbone
from flowers_tpu.monitor import console, tensorboard, trackers
from flowers_tpu.monitor.watchers import Results, Watchers
from flowers_tpu.runs import calibrating, report
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.boundary import TrainingBoundary
from flowers_tpu.runs.environment import environment
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.folder import FURTHER_PHOTOS, SCORES, SUBMISSION, RunFolder, model_of, opened
from flowers_tpu.runs.goodput import Goodput
from flowers_tpu.runs.job import Job, joined
from flowers_tpu.runs.loop import fit, trackers_of
from flowers_tpu.runs.opening import (
    begin_from,
    check_same_data,
    continued,
    list_bad_records,
    without_initial_weights,
)
from flowers_tpu.runs.recipe import Recipe, check_places
from flowers_tpu.runs.results import Trained, predict_test, score_splits
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, folders, terminal, workers
from flowers_tpu.system.errors import RunError
from flowers_tpu.system.folders import UnwritableError
from flowers_tpu.system.signals import Signals
from flowers_tpu.training.checkpoints import Checkpoints, has_checkpoint
from flowers_tpu.training.history import best_row
from flowers_tpu.training.plan import Plan
from flowers_tpu.training.state import TrainState


def train(given: Spec) -> None:
    """Trains, or continues, a run; then evaluates it and predicts the test split."""
    began_at = time.monotonic()
    check_places(given)
    if given.run.tensorboard:
        tensorboard.check_installed()
    if given.run.track != "none":
        trackers.check_installed(given.run.track)
    check_backbone(
        model_of(given).backbone,
        image_size=given.data.image_size,
        evaluation_size=given.data.evaluation_size,
        alpha=given.model.alpha,
    )
    with joined(given) as job:
        if not show_if_finished(job, given):
            train_with(job, given, began_at)
        job.wait()  # until the chief has written all


def train_with(job: Job, given: Spec, began_at: float) -> None:
    """Trains as one of the workers of a job; see `train`."""
    last_life = folders.last_life(given.run.run_dir)
    with opened(given.run.run_dir) as folder:
        recipe, goes_on = Recipe.choose(given), folder.is_run() and not given.run.overwrite
        if goes_on:
            recipe = continued(folder, recipe)
        job.starts(recipe.strategy)
        data = recipe.load_data()
        job.agree_on_data(data)
        if goes_on:
            check_same_data(folder, recipe, data)
        feed = Feed(recipe, data.splits)
        feed.check_cache()
        plan = recipe.plan(data)
        filled = given.run.from_run or (
            goes_on and has_checkpoint(folder.file("checkpoints", "latest"))
        )
        state = (without_initial_weights(recipe) if filled else recipe).state(plan)
        if given.run.overwrite:
            folder.remove()
        if goes_on:
            folder.write_spec(given, recipe.resolved)
        else:
            folder.begin(
                given, recipe.resolved, environment(recipe.facts), data_lib.record_of(data)
            )
        list_bad_records(folder, recipe, data, as_begun=True)
        if len(data.further):
            folder.write_table(FURTHER_PHOTOS, data.further)
        if not plan.validates:
            terminal.note(
                f"--train_splits={given.data.train_splits}: nothing measures this model; its "
                "recipe is measured by a run that validates."
            )
        job.wait()  # until the chief has made the folder what it has to be
        checkpoints = Checkpoints(folder.checkpoints, state)
        resumed = checkpoints.restore_latest()
        if not resumed and given.run.from_run:
            begin_from(folder, recipe, data, state, checkpoints)
        print_plan(recipe, feed, plan, state)
        if resumed:
            console.print_resumed(plan, state)
        trained = Trained(folder, folder, data, feed, state.classifier)
        with Signals() as own, recipe.naming_bad_records(data):
            signals = job.signals(own)
            if not given.run.finish:
                boundary = TrainingBoundary(signals, given.run, began_at, agree=job.decision)
                goodput = Goodput(folder, began_at, last_life)
                fit(trained, plan, state, checkpoints, boundary, goodput)
            best = best_row(state.progress.history)
            if best is None:
                raise RunError(nothing_to_score(given, plan, state))
            job.wait()  # until the chief has saved them
            checkpoints.restore_best(best["epoch"])
            why = f"the best by {plan.training.monitor}" if plan.validates else "the last"
            terminal.note(f"The weights of epoch {best['epoch']} are scored, {why}.")
            predict_test(trained, signals)
            # The scores come after all other results: they say that a run is finished.
            scores = score_splits(trained, signals)
            if not workers.may_write():
                return
            made = calibrating.made_by("best", given.data.evaluation_size)
            calibrating.calibrate(folder, made, records.SPLITS)
            folder.write_json(SCORES, scores)
            report.report(recipe, folder, folder, data.splits, own)
            with Watchers(list(trackers_of(trained, state))) as watching:
                watching.on_results(Results(scores, report.picture_files(folder)))
        if not plan.finished(state.progress.history):
            terminal.say(
                "Scored before its end; the same command without --finish or --max_hours "
                "goes on training."
            )
        print_scores(folder)


def nothing_to_score(given: Spec, plan: Plan, state: TrainState) -> str:
    """Why a run has no best weights, and what to do."""
    epochs = len(state.progress.history)
    if plan.finished(state.progress.history):
        return (
            "no epoch of fine-tuning had a finite loss, so there is nothing to score, and no "
            "submission is written; begin anew with --overwrite and a lower --learning_rate"
        )
    return (
        f"{epochs} epochs are done, but none of fine-tuning, so there is nothing to score yet; the "
        f"run is saved in {given.run.run_dir}, and the same command without --finish, or with more "
        "--max_hours, goes on"
    )


def print_plan(recipe: Recipe, feed: Feed, plan: Plan, state: TrainState) -> None:
    """Prints the numbers of a run before it begins."""
    data = recipe.spec.data
    console.print_plan(
        devices=str(recipe.facts),
        arithmetic=arithmetic_words(recipe, plan),
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


def arithmetic_words(recipe: Recipe, plan: Plan) -> str:
    """Which arithmetic a run has, why, and whether XLA compiles it."""
    words, facts = recipe.resolved.arithmetic, recipe.facts
    if recipe.spec.devices.precision == "auto" and words == facts.arithmetic:
        words += facts.why_arithmetic and f" ({facts.why_arithmetic})"
    return f"{words}, compiled by XLA" if plan.objective.jit else words


def show_if_finished(job: Job, given: Spec) -> bool:
    """Prints the scores of a run that is finished already; returns whether it is.

    Nothing has to be written for that: its folder may be one that only can be read.
    """
    folder = RunFolder(given.run.run_dir)
    if given.run.overwrite or not folder.is_run() or not folder.is_finished(given):
        return False
    recipe = continued(folder, Recipe.choose(given))
    job.starts(recipe.strategy)
    terminal.say(f"{folder.path} is finished; --overwrite begins anew.")
    # Left out before, or killed while it was drawn.
    if given.run.report and not folder.has(report.REPORT) and workers.may_write():
        try:
            with folder.locked(), Signals() as signals:
                report.report(recipe, folder, folder, {}, signals)
        except UnwritableError as error:
            logging.warning("%s; its report is not drawn", error)
    print_scores(folder)
    return True


def print_scores(folder: RunFolder) -> None:
    """Prints the scores in a folder of results."""
    console.print_scores(folder.read_json(SCORES), folder.path, files.list_dir(folder.path))
    if not folder.has(SUBMISSION) and folder.is_run():
        terminal.say(f"scripts/predict.py --run_dir={folder.path} writes the submission.")
