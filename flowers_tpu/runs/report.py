"""Writes what is looked at after a run: `plots/` and `report.html`.

Everything comes from the files of the run and the photos of its data set; no model is needed.
"""

import os
from collections.abc import Mapping

import numpy as np
import pandas as pd
from absl import logging

from flowers_tpu.data import records
from flowers_tpu.data.splits import Split
from flowers_tpu.reports import curves, photos, report_sections
from flowers_tpu.reports.report import Page, embedded, render
from flowers_tpu.runs import goodput
from flowers_tpu.runs.folder import (
    ENVIRONMENT,
    HISTORY,
    SCORES,
    RunFolder,
    predictions_file,
)
from flowers_tpu.runs.opening import EVALUATION_FLAGS, class_names
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
    try:
        write_report(recipe, folder, output, _read_lacking(folder, recipe, splits), signals)
    except StoppedError:
        raise
    except Exception as error:
        logging.warning(
            "the report of %s could not be drawn (%s: %s); all results are written, and the same "
            "command tries again",
            *(folder.path, type(error).__name__, first_line(error)),
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
    files.make_dirs(output.file(_PLOTS))
    with terminal.bar(len(page.pictures), "drawing", "pictures") as bar:
        for picture in page.pictures:
            files.write_atomically(output.file(_PLOTS, f"{picture.name}.png"), picture.png)
            bar.update()
            signals.check()
    is_one_file = recipe.spec.run.report_images == "embedded"
    address = embedded if is_one_file else lambda p: f"{_PLOTS}/{p.name}.png"
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
    labeled = list(reversed(records.LABELED_SPLITS))  # validation is what counts
    matrices = {split: _read_matrix(output, split) for split in labeled}
    known = {split: _read_predictions(output, splits[split]) for split in labeled}
    tables = known | (
        _read_test(output, splits) if spec.data.data_dir == trained.data.data_dir else {}
    )
    chosen = report_sections.chosen(matrices, tables, spec.training.seed)
    album = {
        split: dict(zip(numbers, photos.read_photos(splits[split], numbers), strict=True))
        for split, numbers in chosen.items()
    }
    now = spec.exactly(recipe.resolved).flat()
    return Page(
        title=run_name(folder.path),
        summary=_summary(spec, trained, history, len(matrices["val"])),
        figures=_figures(scores),
        sections=(
            report_sections.scores({split: scores[split] for split in labeled}),
            report_sections.configuration(
                trained.exactly(begun).flat(),
                {name: field.default for name, field in FIELDS.items()},
                {name: now[name] for name in EVALUATION_FLAGS},
                folder.read_json(ENVIRONMENT),
            ),
            report_sections.training(history),
            *_time_spent(folder),
            report_sections.classes({split: _read_classes(output, split) for split in labeled}),
            report_sections.confusions(matrices),
            report_sections.confused_pairs(matrices, known, album),
            report_sections.prediction_sheets(tables, album, spec.training.seed),
            report_sections.calibrations(known),
        ),
    )


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


def _remove_report(folder: RunFolder) -> None:
    """Removes the page, then what may have been drawn for it; files of others stay."""
    if folder.has(REPORT):
        files.remove(folder.file(REPORT))
    if not files.is_dir(folder.file(_PLOTS)):
        return
    for name in files.list_dir(folder.file(_PLOTS)):
        if report_sections.PICTURE_FILES.fullmatch(name):
            files.remove(folder.file(_PLOTS, name))
    if not files.list_dir(folder.file(_PLOTS)):
        files.remove_tree(folder.file(_PLOTS))


def _summary(spec: Spec, trained: Spec, history: pd.DataFrame, num_classes: int) -> str:
    best = curves.best_epoch(history)
    kept = f"the best one is epoch {best}" if best else "no epoch of fine-tuning: the last weights"
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
    val, train = scores["val"], scores["train"]
    return (
        ("validation macro F1", f"{val['macro_f1']:.4f}"),
        ("validation accuracy", f"{val['accuracy']:.4f}"),
        ("validation top 5", f"{val['top5_accuracy']:.4f}"),
        ("validation loss", f"{val['loss']:.4f}"),
        ("training macro F1", f"{train['macro_f1']:.4f}"),
    )


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
    table = folder.read_texts(
        predictions_file(split.name),
        dtype={"id": str, "name": str, "predicted_name": str},
        na_values={"confidence": [""], "loss": [""]},
    )
    return _numbered(table, split.ids)


def _numbered(table: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    """Labels each row with the number of its photo in the split; rows of other photos go."""
    numbers = pd.Index(ids).get_indexer(table["id"])
    return table.set_index(numbers).loc[np.sort(numbers[numbers >= 0])]
