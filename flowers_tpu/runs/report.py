"""Writes what is looked at after a run: `plots/` and `report.html`.

Everything comes from the files of the run and the photos of its data set; no model is needed.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from absl import logging

from flowers_tpu.data import records
from flowers_tpu.data.splits import Split
from flowers_tpu.reports import curves, photos, report_sections
from flowers_tpu.reports.report import Page, embedded, render
from flowers_tpu.runs import calibrating, goodput
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.ensemble import Ensemble
from flowers_tpu.runs.folder import (
    DISPUTED,
    ENVIRONMENT,
    HISTORY,
    ORIGIN,
    SCORES,
    RunFolder,
    predictions_file,
)
from flowers_tpu.runs.opening import EVALUATION_FLAGS, class_names
from flowers_tpu.runs.options import EnsembleOptions
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import FIELDS, Spec
from flowers_tpu.system import files, terminal
from flowers_tpu.system.errors import RequestError, StoppedError, first_line
from flowers_tpu.system.signals import Signals

REPORT = "report.html"
_PLOTS = "plots"


def report(
    recipe: Recipe,
    folder: RunFolder,
    output: RunFolder,
    splits: Mapping[str, Split],
    signals: Signals,
) -> None:
    """Replaces the report of a run that was scored; without `--report`, by none.

    The results of the run are written by now, so what goes wrong with drawing them is a warning.

    Args:
        recipe: with the data that were scored.
        folder: of the run that was scored.
        output: where its results are, and the report goes.
        splits: those that are read already.
        signals: looked at between pictures.

    Raises:
        StoppedError: a signal came; the same command draws it.
    """
    _remove_report(output)  # it tells of scores before these
    if not recipe.spec.run.report:
        return
    with _warning_of_trouble(folder.path):
        write_report(recipe, folder, output, _read_lacking(folder, recipe, splits), signals)


def report_ensemble(
    run: str, output: RunFolder, made: Ensemble, options: EnsembleOptions, signals: Signals
) -> None:
    """Replaces the report of an ensemble; see `report`.

    Args:
        run: path of the member whose data its photos are shown of.
        output: where its results are, and the report goes.
        made: the ensemble.
        options: whether there is a report, and where its images are.
        signals: looked at between pictures.

    Raises:
        StoppedError: a signal came; the same command draws it.
    """
    _remove_report(output)
    if not options.report:
        return
    with _warning_of_trouble(output.path):
        page = make_ensemble_page(RunFolder(run), output, made)
        _write_page(page, output, options.report_images, signals)


@contextlib.contextmanager
def _warning_of_trouble(path: str) -> Iterator[None]:
    """Turns what goes wrong with drawing into a warning, as the results are written by now."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        logging.warning(
            "the report of %s could not be drawn (%s: %s); all results are written, and the same "
            "command tries again",
            *(path, type(error).__name__, first_line(error)),
        )
        logging.debug("where it went wrong", exc_info=True)


def write_report(
    recipe: Recipe,
    folder: RunFolder,
    output: RunFolder,
    splits: Mapping[str, Split],
    signals: Signals,
) -> None:
    """Draws the plots of a scored run and writes its report, which comes last.

    Args:
        recipe: with the data that were scored.
        folder: of the run that was scored.
        output: where its results are, and the report goes.
        splits: those of the data; training and validation, at least.
        signals: looked at between pictures.
    """
    page = make_page(recipe, folder, output, splits)
    _write_page(page, output, recipe.spec.run.report_images, signals)


def _write_page(page: Page, output: RunFolder, images: str, signals: Signals) -> None:
    """Draws the pictures of a page, then writes it."""
    files.make_dirs(output.file(_PLOTS))
    with terminal.bar(len(page.pictures), "drawing", "pictures") as bar:
        for picture in page.pictures:
            files.write_atomically(output.file(_PLOTS, f"{picture.name}.png"), picture.png)
            bar.update()
            signals.check()
    address = embedded if images == "embedded" else lambda p: f"{_PLOTS}/{p.name}.png"
    files.write_atomically(output.file(REPORT), render(page, address))
    terminal.say(
        f"report: {output.file(REPORT)} ({len(page.pictures)} pictures, also in {_PLOTS}/)"
    )


def make_page(
    recipe: Recipe, folder: RunFolder, output: RunFolder, splits: Mapping[str, Split]
) -> Page:
    """Reads a scored run, and the photos to be shown, and puts its report together.

    See `write_report`.
    """
    spec = recipe.spec
    trained, begun = folder.read_specs()
    history, scores = folder.read_table(HISTORY), output.read_json(SCORES)
    # Validation is what counts, if anything validates.
    labeled = [name for name in reversed(records.LABELED_SPLITS) if name in scores]
    matrices = {split: _read_matrix(output, split) for split in labeled}
    known = {split: _read_predictions(output, splits[split]) for split in labeled}
    tables = known | (
        _read_test(output, splits) if spec.data.data_dir == trained.data.data_dir else {}
    )
    disputed = _read_disputed(output, splits["val"].ids) if "val" in splits else None
    chosen = report_sections.chosen(matrices, tables, spec.training.seed, disputed)
    album = {
        split: dict(zip(numbers, photos.read_photos(splits[split], numbers), strict=True))
        for split, numbers in chosen.items()
    }
    now = spec.exactly(recipe.resolved).flat()
    return Page(
        title=run_name(folder.path),
        summary=_summary(spec, trained, history, len(matrices["train"])),
        figures=_figures(scores),
        sections=(
            report_sections.scores({split: scores[split] for split in labeled}),
            report_sections.configuration(
                trained.exactly(begun).flat(),
                {name: field.default for name, field in FIELDS.items()},
                {name: now[name] for name in EVALUATION_FLAGS}
                | {"views": ",".join((_read_temperature(output) or {}).get("views") or ())},
                folder.read_json(ENVIRONMENT),
            ),
            report_sections.training(history),
            *_stages(folder, trained, history),
            *_time_spent(folder),
            report_sections.classes({split: _read_classes(output, split) for split in labeled}),
            report_sections.confusions(matrices),
            report_sections.confused_pairs(matrices, known, album),
            report_sections.prediction_sheets(tables, album, spec.training.seed),
            *([report_sections.disputed_labels(disputed, album["val"])] if "val" in scores else []),
            report_sections.calibrations(known, _read_temperature(output)),
        ),
    )


def make_ensemble_page(run: RunFolder, output: RunFolder, made: Ensemble) -> Page:
    """Reads a scored ensemble, and the photos to be shown, and puts its report together.

    Args:
        run: the member whose data set has the photos; those of folds are not shown.
        output: where the results are.
        made: the ensemble.
    """
    about, scores = made.about, output.read_json(SCORES)
    labeled = [name for name in ("val", "train") if name in made.outputs]
    matrices = {split: _read_matrix(output, split) for split in labeled}
    tables = {
        split: _numbered(_read_predictions_table(output, split), made.outputs[split].ids)
        for split in (*labeled, "test")
    }
    splits = {} if about["folds"] else _splits_shown(run, made)
    shown = {split: table for split, table in tables.items() if split in splits}
    seed = run.read_specs()[0].training.seed
    validates = "val" in made.outputs
    disputed = _read_disputed(output, made.outputs["val"].ids) if validates else None
    pictured = (report_sections.disputed_labels(disputed, {}),) if validates else ()
    if "val" in shown:
        album = {
            split: dict(zip(numbers, photos.read_photos(splits[split], numbers), strict=True))
            for split, numbers in report_sections.chosen(matrices, shown, seed, disputed).items()
        }
        pictured = (
            report_sections.confused_pairs(matrices, shown, album),
            report_sections.prediction_sheets(shown, album, seed),
            report_sections.disputed_labels(disputed, album["val"]),
        )
    runs = len(about["runs"])
    what = f"{about['folds']} folds" if about["folds"] else f"weights: {about['weights']}"
    return Page(
        title=run_name(output.path),
        summary=f"{runs} runs averaged, {what}; {len(made.outputs['test'].class_names)} classes.",
        figures=_figures(scores),
        sections=(
            report_sections.scores({split: scores[split] for split in labeled}),
            report_sections.members(about),
            report_sections.classes({split: _read_classes(output, split) for split in labeled}),
            report_sections.confusions(matrices),
            *pictured,
            report_sections.calibrations(
                {split: tables[split] for split in labeled}, _read_temperature(output)
            ),
        ),
    )


def _splits_shown(run: RunFolder, made: Ensemble) -> dict[str, Split]:
    """The splits of a run's data that are still the photos of an ensemble, in the same order."""
    spec, _ = run.read_specs()
    found = {}
    for name, outputs in made.outputs.items():
        try:
            split = data_lib.load(spec.data, (name,), outputs.class_names).splits[name]
        except RequestError as error:
            terminal.note(f"The report shows no photos of {name}: {error}")
            continue
        if np.array_equal(split.fingerprints, outputs.fingerprints):
            found[name] = split
    return found


def _stages(
    folder: RunFolder, trained: Spec, history: pd.DataFrame
) -> list[report_sections.Section]:
    if not folder.has(ORIGIN):
        return []
    row = history[history["epoch"] == (curves.best_epoch(history) or len(history))].iloc[0]
    own = {"run": folder.path, "image_size": trained.data.image_size, "epoch": row["epoch"]}
    own |= {"data": os.path.basename(trained.data.data_dir), "val_macro_f1": row["val_macro_f1"]}
    return [report_sections.stages({**own, "before": folder.read_json(ORIGIN)})]


def _time_spent(folder: RunFolder) -> list[report_sections.Section]:
    table = folder.read_table(goodput.FILE)
    return [report_sections.time_spent(goodput.summary(table))] if len(table) else []


def run_name(path: str) -> str:
    """The last part of a run's path."""
    return os.path.basename(path.rstrip("/")) or path


def _read_lacking(
    folder: RunFolder, recipe: Recipe, splits: Mapping[str, Split]
) -> dict[str, Split]:
    """Adds the splits that are not read yet; the test split may be missing."""
    found = dict(splits)
    for name in records.SPLITS:
        try:
            if name not in found:
                found |= recipe.load_data((name,), class_names(folder)).splits
        except RequestError as error:
            if name in records.LABELED_SPLITS:
                raise
            terminal.note(f"The report shows no test photos: {error}")
    return found


def picture_files(folder: RunFolder) -> list[str]:
    """Returns the paths of the pictures that a report has drawn."""
    if not files.is_dir(folder.file(_PLOTS)):
        return []
    names = sorted(files.list_dir(folder.file(_PLOTS)))
    drawn = [name for name in names if report_sections.PICTURE_FILES.fullmatch(name)]
    return [folder.file(_PLOTS, name) for name in drawn]


def _remove_report(folder: RunFolder) -> None:
    """Removes the page, then what may have been drawn for it; files of others stay."""
    if folder.has(REPORT):
        files.remove(folder.file(REPORT))
    for path in picture_files(folder):
        files.remove(path)
    if not files.is_dir(folder.file(_PLOTS)):
        return
    if not files.list_dir(folder.file(_PLOTS)):
        files.remove_tree(folder.file(_PLOTS))


def _summary(spec: Spec, trained: Spec, history: pd.DataFrame, num_classes: int) -> str:
    best = curves.best_epoch(history)
    kept = f"the best one is epoch {best}" if best else "no epoch of fine-tuning: the last weights"
    if history["val_loss"].isna().all():
        kept = "nothing validates, so the last weights are taken and nothing measures them"
    data, origin = spec.data, ""
    if data.data_dir != trained.data.data_dir:
        origin = f", trained on {trained.data.data_dir}"
    size = f"{data.image_size} px"
    if data.evaluation_size != data.image_size:
        size += f" ({data.evaluation_size} in evaluation)"
    return (
        f"{os.path.basename(spec.model.backbone)}, {size}, {num_classes} classes of {data.data_dir}"
        f"{origin}. {len(history)} epochs; {kept}."
    )


def _figures(scores: Mapping[str, Mapping[str, float]]) -> tuple[tuple[str, str], ...]:
    figures: list[tuple[str, str]] = []
    if "val" in scores:
        val = scores["val"]
        figures += [
            ("validation macro F1", f"{val['macro_f1']:.4f}"),
            ("validation accuracy", f"{val['accuracy']:.4f}"),
            ("validation top 5", f"{val['top5_accuracy']:.4f}"),
            ("validation loss", f"{val['loss']:.4f}"),
        ]
    if "train" in scores:
        figures.append(("training macro F1", f"{scores['train']['macro_f1']:.4f}"))
    return tuple(figures)


def _read_temperature(folder: RunFolder) -> dict | None:
    return folder.read_json(calibrating.FILE) if folder.has(calibrating.FILE) else None


def _read_matrix(folder: RunFolder, split: str) -> pd.DataFrame:
    matrix = folder.read_texts(f"confusion_{split}.csv", dtype={"true class": str})
    return matrix.set_index("true class")


def _read_classes(folder: RunFolder, split: str) -> pd.DataFrame:
    return folder.read_texts(
        f"classification_report_{split}.csv",
        dtype={"class": str, "label": str},
        na_values={"precision": [""], "recall": [""], "f1-score": [""]},
    )


def _read_test(folder: RunFolder, splits: Mapping[str, Split]) -> dict[str, pd.DataFrame]:
    """What is predicted of the test photos, where anything is: they may be others than then."""
    if "test" not in splits or not folder.has(predictions_file("test")):
        return {}
    table = _read_predictions(folder, splits["test"])
    return {"test": table} if len(table) else {}


def _read_predictions(folder: RunFolder, split: Split) -> pd.DataFrame:
    return _numbered(_read_predictions_table(folder, split.name), split.ids)


def _read_predictions_table(folder: RunFolder, split: str) -> pd.DataFrame:
    return folder.read_texts(
        predictions_file(split),
        dtype={"id": str, "name": str, "predicted_name": str},
        na_values={"confidence": [""], "loss": [""]},
    )


def _read_disputed(folder: RunFolder, ids: np.ndarray) -> pd.DataFrame | None:
    """The photos whose label the model disputes, the most disputed first; None for old scores."""
    if not folder.has(DISPUTED):
        return None
    texts = {"id": str, "name": str, "suggested_name": str}
    table = folder.read_texts(DISPUTED, dtype=texts)
    return _numbered(table, ids).sort_values("margin", kind="stable")


def _numbered(table: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    """Labels each row with the number of its photo in the split; rows of other photos go."""
    numbers = pd.Index(ids).get_indexer(table["id"])
    return table.set_index(numbers).loc[np.sort(numbers[numbers >= 0])]
