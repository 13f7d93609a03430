"""A run that is there already: continued by training, or opened for its weights."""

import dataclasses
import os
from typing import Any

from absl import logging

from flowers_tpu.data import check
from flowers_tpu.models.classifier import Classifier
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.data import Data
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.folder import BAD_RECORDS, DATA, ORIGIN, RunFolder, no_run_at
from flowers_tpu.runs.options import ResultsOptions, ViewedOptions
from flowers_tpu.runs.recipe import Recipe, check_places
from flowers_tpu.runs.results import Trained
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, terminal
from flowers_tpu.system.devices import choose_devices
from flowers_tpu.system.errors import RequestError, RunError
from flowers_tpu.training import checkpoints as checkpoints_lib
from flowers_tpu.training.checkpoints import Checkpoints
from flowers_tpu.training.history import best_row
from flowers_tpu.training.plan import finished
from flowers_tpu.training.state import TrainState

# The flags in which an evaluation may differ from the training, where results depend on them.
EVALUATION_FLAGS = (
    *("data_dir", "classes", "batch_size_per_replica", "global_batch_size", "precision"),
    *("eval_image_size", "folds", "fold", "fold_seed", "train_splits", "extra_data_dirs"),
    "allow_near_copies",
)


def continued(folder: RunFolder, recipe: Recipe) -> Recipe:
    """Returns the recipe of a run that goes on: what its numbers depend on is as it began.

    Raises:
        RequestError: flags have changed on which its results depend.
    """
    folder.check_same_flags(recipe.spec, recipe.resolved)
    _, begun = folder.read_specs()
    if recipe.resolved.photos_per_step != begun.photos_per_step:
        terminal.say(f"Keeping the global batch of {begun.photos_per_step} this run began with.")
    return Recipe.on(recipe.devices, recipe.spec, begun)


def check_same_data(folder: RunFolder, recipe: Recipe, data: Data) -> None:
    """Refuses to continue a run with other data than it began with."""
    if folder.has(DATA):
        data_lib.check_unchanged(folder.read_json(DATA), data, recipe.spec.data.data_dir)
    else:
        logging.warning(
            "%s: made by an earlier version, which kept nothing to know its data by, so whether "
            "they are the same cannot be checked, and which drew other numbers for augmentation",
            folder.path,
        )


def without_initial_weights(recipe: Recipe) -> Recipe:
    """Returns a recipe whose model is filled from a checkpoint: its file of weights may be gone."""
    model = dataclasses.replace(recipe.spec.model, weights="none")
    return dataclasses.replace(recipe, spec=dataclasses.replace(recipe.spec, model=model))


def begin_from(
    folder: RunFolder, recipe: Recipe, data: Data, state: TrainState, checkpoints: Checkpoints
) -> None:
    """Fills the state of a new run from another run, saves it, and records where that was.

    The photos may be of another size. If the classes are others, all but the head is taken. From
    then on the new run needs the other one no more.

    Args:
        folder: of the new run.
        recipe: with `--from_run`.
        data: of the new run.
        state: of the new run; changed in place.
        checkpoints: of the new run.

    Raises:
        RequestError: there is no such run, its model is another, or its state is asked for and its
            classes are others.
    """
    path, which = recipe.spec.run.origin
    origin = RunFolder(path)
    flag = f"--from_run={recipe.spec.run.from_run}"
    if not origin.is_run():
        raise RequestError(f"{flag}: {no_run_at(path)}")
    names = class_names(origin)
    with_head = names in (None, data.class_names)
    if not with_head and which == "state":
        raise RequestError(
            f"{flag}: that run has other classes ({len(names)}, the first {names[0]!r}) than the "
            f"data ({data.num_classes}, the first {data.class_names[0]!r}), so that its state fits "
            f"no model of these; {path} or {path}@latest takes its weights but for the head"
        )
    classifier = state.classifier
    if not with_head:
        with recipe.strategy.scope():
            classifier = without_initial_weights(recipe).classifier(len(names))
    history = origin.history()
    best = best_row(history)
    try:
        if which == "best" and best is None:
            raise RequestError(f"{flag}: has no best weights yet; {path}@latest takes the last")
        if which != "latest" and best is not None:
            _restore_weights(origin, classifier, int(best["epoch"]))
        if which == "latest":
            _restore_weights(origin, classifier)
        if which == "state":
            if best is not None:
                checkpoints.save_best(int(best["epoch"]))
            if not Checkpoints(origin.checkpoints, state).restore_latest():
                raise RequestError(f"{flag}: has no checkpoint yet")
    except RunError as error:
        raise RequestError(f"{flag}: {error}") from error
    if not with_head:
        pairs = zip(state.classifier.features.variables, classifier.features.variables, strict=True)
        for variable, taken in pairs:
            variable.assign(taken)
    if state.averages is not None and which != "state":
        state.averages.begin_anew()
    checkpoints.save_latest()
    epoch = int(best["epoch"]) if best and which == "best" else len(history)
    folder.write_json(ORIGIN, _stage_of(origin, which, epoch, with_head=with_head))
    head = "" if with_head else ", but for the head, as the classes are others"
    terminal.note(f"Begins with the {which} of {path}, after epoch {epoch}{head}.")


def _stage_of(origin: RunFolder, which: str, epoch: int, *, with_head: bool) -> dict[str, Any]:
    """What a run keeps of the one it began with: what it was then, and what that began with."""
    spec, _ = origin.read_specs()
    row = next((row for row in origin.history() if row["epoch"] == epoch), None)
    return {
        **{"run": origin.path, "taken": which, "epoch": epoch, "with_head": with_head},
        **{"image_size": spec.data.image_size, "data": os.path.basename(spec.data.data_dir)},
        "val_macro_f1": row and row["val_macro_f1"],
        "before": origin.read_json(ORIGIN) if origin.has(ORIGIN) else None,
    }


def class_names(folder: RunFolder) -> tuple[str, ...] | None:
    """Returns the classes that a run was trained on; None if it was made by version 0.1."""
    return tuple(folder.read_json(DATA)["class_names"]) if folder.has(DATA) else None


def open_trained(
    folder: RunFolder,
    output: RunFolder,
    given: Spec,
    options: ResultsOptions,
    splits: tuple[str, ...],
    *,
    must_have_ended: bool = False,
    have_labels: bool | None = None,
) -> Trained:
    """Opens a run for evaluation; devices, place of the data, batch and precision may be others.

    Args:
        folder: of the run.
        output: for the results.
        given: the flags of the run, but for those that were given otherwise.
        options: which weights to take.
        splits: names of those to read.
        must_have_ended: refuse a run whose training has not.
        have_labels: whether all of these splits must; None: `train` and `val` must.

    Raises:
        RequestError: another flag differs, or the run has no such weights.
    """
    check_places(given)
    begun_spec, begun = folder.read_specs()
    if must_have_ended:
        _check_ended(folder, begun_spec)
    check_evaluation_flags(folder, given)
    if given.devices.precision == "auto":
        given = given.changed(precision=begun.arithmetic)
    recipe = Recipe.on(choose_devices(given.devices), given)
    names = class_names(folder)
    if names is None:
        logging.warning(
            "%s: made by an earlier version, which did not keep the names of its classes; those of "
            "the data are taken",
            folder.path,
        )
    data = recipe.load_data(splits, names, have_labels=have_labels)
    list_bad_records(output, recipe, data, as_begun=False)
    classifier = restored_classifier(folder, recipe, options.checkpoint, data.num_classes)
    views = options.kinds_of_views if isinstance(options, ViewedOptions) else ()
    return Trained(folder, output, data, Feed(recipe, data.splits), classifier, views)


def check_evaluation_flags(folder: RunFolder, given: Spec) -> None:
    """Raises RequestError if a flag differs from the run's that an opened run has to keep."""
    begun, _ = folder.read_specs()
    if changed := set(begun.differing(given)) - set(EVALUATION_FLAGS):
        raise RequestError(
            f"--{min(changed)} cannot differ from that of the run in --run_dir={folder.path}; "
            f"only devices, {', '.join(sorted(f'--{name}' for name in EVALUATION_FLAGS))} can"
        )


def restored_classifier(
    folder: RunFolder, recipe: Recipe, checkpoint: str, num_classes: int
) -> Classifier:
    """Returns the model of a run with its weights, as they were saved.

    Args:
        folder: of the run.
        recipe: on the devices that are to have it.
        checkpoint: `best` or `latest`.
        num_classes: of the run.

    Raises:
        RequestError: the run has no such weights.
    """
    with recipe.strategy.scope():
        classifier = without_initial_weights(recipe).classifier(num_classes)
    if checkpoint == "latest":
        _restore_weights(folder, classifier)
    elif best := best_row(folder.history()):
        _restore_weights(folder, classifier, int(best["epoch"]))
    else:
        raise RequestError(
            f"--run_dir={folder.path}: has no best weights yet, as no epoch of fine-tuning has "
            "ended well; scripts/train.py continues it, --checkpoint=latest takes the last weights"
        )
    return classifier


def _restore_weights(folder: RunFolder, classifier: Classifier, best: int | None = None) -> None:
    """Fills a model with the weights of a run: of its best epoch, or None for the last ones."""
    if best is None:
        latest = files.join(folder.checkpoints, "latest")
        checkpoints_lib.restore_latest_weights(latest, classifier)
    else:
        checkpoints_lib.restore_best_weights(
            files.join(folder.checkpoints, "best"), classifier, best
        )


def list_bad_records(folder: RunFolder, recipe: Recipe, data: Data, *, as_begun: bool) -> None:
    """Writes what is left out of the splits; `as_begun`: which must be what was left out before."""
    if recipe.spec.data.bad_records == "fail":
        return
    path = folder.file(BAD_RECORDS)
    known = files.read_text(path) if folder.has(BAD_RECORDS) else ""
    table = check.bad_records(data.splits.values(), known)
    if as_begun and known not in ("", table):
        raise RequestError(
            f"{path}: lists other records than those that are bad now; with them, the order of the "
            "photos would change. Restore the data of this run, or begin anew with --overwrite"
        )
    files.write_atomically(path, table)


def _check_ended(folder: RunFolder, spec: Spec) -> None:
    """Raises RequestError if training has not ended: scores say of a run that it is finished."""
    history = folder.history()
    if not folder.is_scored() and not finished(spec.schedule, spec.training, history):
        raise RequestError(
            f"--run_dir={folder.path}: its training has not ended ({len(history)} of at most "
            f"{spec.schedule.total_epochs} epochs are done); scripts/train.py with the same flags "
            "continues the run, and with --finish ends it now; both score it"
        )
