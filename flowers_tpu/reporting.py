"""Writes what is looked at after a run: `plots/` and `report.html`.

Everything comes from the files of the run and the photos of its data set; no model is needed.
"""

import dataclasses
import io
import os
from collections.abc import Mapping

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from flowers_tpu import files, parts, progress
from flowers_tpu.config import Config
from flowers_tpu.data import records
from flowers_tpu.errors import RequestError, StoppedError, first_line
from flowers_tpu.interruption import Interruption
from flowers_tpu.reports import curves, photos, report_sections
from flowers_tpu.reports.report import Page, embedded, render
from flowers_tpu.run_directory import RunDirectory

REPORT = "report.html"
_PLOTS = "plots"

# The flags in which an evaluation may differ from the training, where results depend on them.
EVALUATION_FLAGS = ("data_dir", "batch_size_per_replica", "global_batch_size", "precision")


def report(
    config: Config,
    run: RunDirectory,
    splits: Mapping[str, records.Split],
    interruption: Interruption,
) -> None:
    """Replaces the report of a run that was scored; without `--report`, by none.

    The results of the run are written by now, so what goes wrong with drawing them is a warning.

    Args:
        config: resolved, with the data that were scored.
        run: scored.
        splits: those that are read already.
        interruption: polled between pictures.

    Raises:
        StoppedError: a signal came; the same command draws it.
    """
    _remove_report(run)  # it tells of scores before these
    if not config.report:
        return
    try:
        write_report(config, run, _read_lacking(config, splits), interruption)
    except StoppedError:
        raise
    except Exception as error:
        logging.warning(
            "the report of %s could not be drawn (%s: %s); all results are written, and the same "
            "command tries again",
            *(run.path, type(error).__name__, first_line(error)),
        )
        logging.debug("where it went wrong", exc_info=True)


def write_report(
    config: Config,
    run: RunDirectory,
    splits: Mapping[str, records.Split],
    interruption: Interruption,
) -> None:
    """Draws the plots of a scored run and writes its report, which comes last.

    Args:
        config: resolved, with the data that were scored.
        run: scored.
        splits: those of the data; training and validation, at least.
        interruption: polled between pictures.
    """
    page = make_page(config, run, splits)
    tf.io.gfile.makedirs(run.file(_PLOTS))
    with progress.bar(len(page.pictures), "drawing", "pictures") as bar:
        for picture in page.pictures:
            files.write_atomically(run.file(_PLOTS, f"{picture.name}.png"), picture.png)
            bar.update()
            interruption.check()
    is_one_file = config.report_images == "embedded"
    address = embedded if is_one_file else lambda p: f"{_PLOTS}/{p.name}.png"
    files.write_atomically(run.file(REPORT), render(page, address))
    progress.say(f"report: {run.file(REPORT)} ({len(page.pictures)} pictures, also in {_PLOTS}/)")


def make_page(config: Config, run: RunDirectory, splits: Mapping[str, records.Split]) -> Page:
    """Reads a scored run, and the photos to be shown, and puts its report together.

    See `write_report`.
    """
    _, trained = run.read_configs()
    history, scores = run.read_table("history.csv"), run.read_json("scores.json")
    labeled = list(reversed(records.LABELED_SPLITS))  # validation is what counts
    matrices = {split: _read_matrix(run, split) for split in labeled}
    known = {split: _read_predictions(run, splits[split]) for split in labeled}
    tables = known | (_read_test(run, splits) if config.data_dir == trained.data_dir else {})
    chosen = report_sections.chosen(matrices, tables, config.seed)
    album = {
        split: dict(zip(numbers, photos.read_photos(splits[split], numbers), strict=True))
        for split, numbers in chosen.items()
    }
    return Page(
        title=run_name(run.path),
        summary=_summary(config, trained, history, len(matrices["val"])),
        figures=_figures(scores),
        sections=(
            report_sections.scores({split: scores[split] for split in labeled}),
            report_sections.configuration(
                dataclasses.asdict(trained),
                {field.name: field.default for field in dataclasses.fields(Config)},
                {name: getattr(config, name) for name in EVALUATION_FLAGS},
                run.read_json("environment.json"),
            ),
            report_sections.training(history),
            report_sections.classes({split: _read_classes(run, split) for split in labeled}),
            report_sections.confusions(matrices),
            report_sections.confused_pairs(matrices, known, album),
            report_sections.prediction_sheets(tables, album, config.seed),
            report_sections.calibrations(known),
        ),
    )


def run_name(path: str) -> str:
    """The last part of a run's path."""
    return os.path.basename(path.rstrip("/")) or path


def _read_lacking(config: Config, splits: Mapping[str, records.Split]) -> dict[str, records.Split]:
    """Adds the splits that are not read yet; the test split may be missing."""
    found = dict(splits)
    for name in records.SPLITS:
        try:
            if name not in found:
                found |= parts.load_data(config, (name,)).splits
        except RequestError as error:
            if name in records.LABELED_SPLITS:
                raise
            progress.note(f"The report shows no test photos: {error}")
    return found


def _remove_report(run: RunDirectory) -> None:
    """Removes the page, then what may have been drawn for it; files of others stay."""
    if run.has(REPORT):
        tf.io.gfile.remove(run.file(REPORT))
    if not tf.io.gfile.isdir(run.file(_PLOTS)):
        return
    for name in tf.io.gfile.listdir(run.file(_PLOTS)):
        if report_sections.PICTURE_FILES.fullmatch(name):
            tf.io.gfile.remove(run.file(_PLOTS, name))
    if not tf.io.gfile.listdir(run.file(_PLOTS)):
        tf.io.gfile.rmtree(run.file(_PLOTS))


def _summary(config: Config, trained: Config, history: pd.DataFrame, num_classes: int) -> str:
    best = curves.best_epoch(history)
    kept = f"the best one is epoch {best}" if best else "no epoch of fine-tuning: the last weights"
    origin = "" if config.data_dir == trained.data_dir else f", trained on {trained.data_dir}"
    return (
        f"{config.backbone}, {config.image_size} px, {num_classes} classes of {config.data_dir}"
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


def _read(run: RunDirectory, name: str, **how: object) -> pd.DataFrame:
    """Reads a table whose texts are just texts: an id `007` or a class `nan` stays what it is."""
    text = io.StringIO(files.read_text(run.file(name)))
    return pd.read_csv(text, keep_default_na=False, **how)


def _read_matrix(run: RunDirectory, split: str) -> pd.DataFrame:
    matrix = _read(run, f"confusion_{split}.csv", dtype={"true class": str})
    return matrix.set_index("true class")


def _read_classes(run: RunDirectory, split: str) -> pd.DataFrame:
    return _read(
        run,
        f"classification_report_{split}.csv",
        dtype={"class": str, "label": str},
        na_values={"precision": [""], "recall": [""], "f1-score": [""]},
    )


def _read_test(run: RunDirectory, splits: Mapping[str, records.Split]) -> dict[str, pd.DataFrame]:
    """What is predicted of the test photos, where anything is: they may be others than then."""
    if "test" not in splits or not run.has("predictions_test.csv"):
        return {}
    table = _read_predictions(run, splits["test"])
    return {"test": table} if len(table) else {}


def _read_predictions(run: RunDirectory, split: records.Split) -> pd.DataFrame:
    table = _read(
        run,
        f"predictions_{split.name}.csv",
        dtype={"id": str, "name": str, "predicted_name": str},
        na_values={"confidence": [""], "loss": [""]},
    )
    return _numbered(table, split.ids)


def _numbered(table: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    """Labels each row with the number of its photo in the split; rows of other photos go."""
    numbers = pd.Index(ids).get_indexer(table["id"])
    return table.set_index(numbers).loc[np.sort(numbers[numbers >= 0])]
