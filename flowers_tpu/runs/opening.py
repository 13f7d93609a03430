"""A run that is there already: continued by training, or opened for its best model."""

import dataclasses

from flowers_tpu.data import check
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.folder import BAD_RECORDS, HISTORY, RunFolder
from flowers_tpu.runs.recipe import Data, Recipe
from flowers_tpu.runs.results import Trained
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, terminal
from flowers_tpu.system.devices import choose_devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.training.checkpoints import restore_best_weights
from flowers_tpu.training.plan import finished

# The flags in which an evaluation may differ from the training, where results depend on them.
EVALUATION_FLAGS = ("data_dir", "batch_size_per_replica", "global_batch_size", "precision")


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


def open_trained(
    folder: RunFolder, given: Spec, splits: tuple[str, ...], *, must_have_ended: bool = False
) -> Trained:
    """Opens a run for evaluation; devices, place of the data, batch and precision may be others.

    Args:
        folder: of the run.
        given: the flags of the run, but for those that were given otherwise.
        splits: names of those to read.
        must_have_ended: refuse a run whose training has not.

    Raises:
        RequestError: another flag differs, or the run has no best checkpoint.
    """
    begun_spec, begun = folder.read_specs()
    if must_have_ended:
        _check_ended(folder, begun_spec)
    if changed := set(begun_spec.differing(given)) - set(EVALUATION_FLAGS):
        raise RequestError(
            f"--{min(changed)} cannot differ from that of the run in --run_dir={folder.path}; "
            f"only devices, {', '.join(sorted(f'--{name}' for name in EVALUATION_FLAGS))} can"
        )
    if given.devices.precision == "auto":
        given = given.changed(precision=begun.arithmetic)
    recipe = Recipe.on(choose_devices(given.devices), given)
    data = recipe.load_data(splits)
    list_bad_records(folder, recipe, data, as_begun=False)
    empty = dataclasses.replace(given, model=dataclasses.replace(given.model, weights="none"))
    with recipe.strategy.scope():  # the checkpoint fills every weight
        classifier = Recipe(empty, recipe.devices, recipe.resolved).classifier(data.num_classes)
    if not restore_best_weights(files.join(folder.checkpoints, "best"), classifier):
        raise RequestError(
            f"--run_dir={folder.path}: has no best checkpoint: only epochs of fine-tuning make "
            "one. scripts/train.py continues a run that is not finished"
        )
    return Trained(folder, data, Feed(recipe, data.splits), classifier)


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
    history = folder.read_table(HISTORY).to_dict("records")
    if not finished(spec.schedule, spec.training, history):
        raise RequestError(
            f"--run_dir={folder.path}: its training has not ended ({len(history)} of at most "
            f"{spec.schedule.total_epochs} epochs are done); scripts/train.py with the same flags "
            "continues the run, and scores it at its end"
        )
