"""What a run's report is made of: its tables and pictures, from what the run wrote."""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.reports import calibration, confusion, curves, photos, predictions
from flowers_tpu.reports.report import Picture, Section, Table

SPLITS = {"val": "validation", "train": "training", "test": "test"}
_EXAMPLES = 6  # pairs of confused classes that are shown
_DISPUTED = 50  # rows of their table
_MISTAKEN = 3  # photos of each

# The files of all pictures that a report can have.
_SPLIT = "(train|val|test)"
PICTURE_FILES = re.compile(
    f"({'|'.join(curves.METRICS)}|confused_pairs|(confusion|reliability|confidence)_{_SPLIT}"
    f"|reliability_val_calibrated|disputed_labels"
    rf"|confusion_{_SPLIT}_\d+|predictions_{_SPLIT}_(random|highest_loss|least_confident))\.png"
)

# The photos of the splits that are shown: by split, then by number in it, `[size, size, 3]` uint8.
Album = Mapping[str, Mapping[int, np.ndarray]]


def scores(values: Mapping[str, Mapping[str, float]]) -> Section:
    """Returns the section of the scores, a row per split.

    Args:
        values: `scores.json`; runs of 0.1 have no intervals in it.
    """
    frame = pd.DataFrame(values).T.rename_axis("split").reset_index()
    counts = [n for n in ("examples", "left_out", "test_photos_in_training") if n in frame]
    frame = frame.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))
    frame["split"] = frame["split"].map(SPLITS)
    if "macro_f1_low" in frame:
        bounds = zip(frame.pop("macro_f1_low"), frame.pop("macro_f1_high"), strict=True)
        interval = [f"{low:.4f} to {high:.4f}" for low, high in bounds]
        frame.insert(frame.columns.get_loc("macro_f1") + 1, "its 95 % interval", interval)
    frame.columns = [name.replace("_", " ").replace("f1", "F1") for name in frame.columns]
    return Section("Scores", tables=(Table("Scores of the best weights", frame),))


def members(about: Mapping) -> Section:
    """Returns the section of the runs of an ensemble.

    Args:
        about: `ensemble.json`.
    """
    frame = pd.DataFrame(about["runs"])
    frame.columns = [name.replace("_", " ").replace("f1", "F1") for name in frame.columns]
    text = "The probabilities of the runs are averaged with these weights."
    if about["folds"]:
        text += (
            f" They are {about['folds']} folds of one data set: each photo is scored by the runs "
            "that were not trained on it, and test photos are predicted by all. What is called "
            "validation here are the validation photos of all folds."
        )
        return Section("Members", text, (Table("Runs", frame),))
    if about["weights"] == "search":
        text += (
            " They are fitted to the lowest loss on the validation photos. The scores of "
            "validation are cross-validated: each photo by weights that were fitted without it."
        )
    if "gain_over_best" not in about:
        return Section("Members", f"{text} Nothing validates them.", (Table("Runs", frame),))
    text += (
        f" Macro F1 of validation over the best run: {about['gain_over_best']:+.4f} "
        f"(95 % interval {about['gain_low']:+.4f} to {about['gain_high']:+.4f})."
    )
    return Section("Members", text, (Table("Runs", frame),))


def training(history: pd.DataFrame) -> Section:
    """Returns the section of the curves."""
    best = curves.best_epoch(history)
    row = history[history["epoch"] == best].iloc[0] if best else history.iloc[-1]
    text = (
        "Training figures are means over an epoch while its weights change, of augmented photos, "
        "with dropout and label smoothing where they are used; validation has none of these. "
        "Hence training loss may stay above validation loss."
    )
    pictures = []
    for metric, (title, unit) in curves.METRICS.items():
        names = [metric] if metric == "learning_rate" else [metric, f"val_{metric}"]
        names = [name for name in names if pd.notna(row[name])]
        at_best = ", ".join(f"{name} {row[name]:.3g}" for name in names)
        alt = f"{title} ({unit}) in {len(history)} epochs; in epoch {row['epoch']}: {at_best}"
        draw = functools.partial(curves.curve, history, metric)
        pictures.append(Picture(metric, alt, draw))
    return Section("Training", text, pictures=tuple(pictures))


def classes(reports: Mapping[str, pd.DataFrame]) -> Section:
    """Returns the section of the scores per class.

    Args:
        reports: by split, `classification_report_*.csv`: columns `class`, `label` (empty for
            averages), `precision`, `recall`, `f1-score` and `support`.
    """
    tables = []
    for split, report in reports.items():
        is_class = report["label"] != ""
        rows = report[is_class].astype({"label": int}).rename(columns={"f1-score": "F1"})
        averages = report[~is_class].rename(columns={"f1-score": "F1"})
        tables.append(Table(f"Classes, {SPLITS[split]}", rows, averages))
    text = "A click on a column's header sorts by it; once more, the other way."
    if any(report["f1-score"].isna().any() for report in reports.values()):
        text += (
            " A dash: no photo of the split is of that class or taken for it, and the averages "
            "leave it out."
        )
    return Section("Classes", text, tables=tuple(tables))


def confusions(matrices: Mapping[str, pd.DataFrame]) -> Section:
    """Returns the section of the confusion matrices.

    Args:
        matrices: by split, counts; rows are the truth, columns the prediction.
    """
    pictures = []
    for split, matrix in matrices.items():
        num_classes, title = len(matrix), SPLITS[split]
        parts = confusion.parts(num_classes)
        for number, rows in enumerate(parts, start=1):
            first, last = matrix.index[rows][[0, -1]]
            heading = f"Confusion, {title}, part {number} of {len(parts)}: {first} to {last}"
            alt = f"Heatmap. {heading}. {_diagonal(matrix.iloc[rows, rows])}"
            part = confusion.part(matrix, rows)
            draw = functools.partial(confusion.heatmap, part, heading)
            pictures.append(Picture(f"confusion_{split}_{number}", alt, draw, dpi=96, is_wide=True))
        heading = f"Confusion, {title}, {num_classes} classes"
        alt = f"Heatmap. {heading}. {_diagonal(matrix)}"
        draw = functools.partial(confusion.heatmap, confusion.shares(matrix), heading)
        pictures.append(Picture(f"confusion_{split}", alt, draw, dpi=110, is_wide=True))
    text = "Each row shows what the photos of one class are taken for, and sums to 1."
    if any((matrix.sum(axis=1) == 0).any() for matrix in matrices.values()):
        text += " Grey rows are classes without a photo in that split."
    if any(confusion.parts(len(matrix)) for matrix in matrices.values()):
        text += (
            " A part shows some of the classes, then, right of the line, the other classes they "
            "are taken for most, and the sum of all the rest."
        )
    return Section("Confusion", text, pictures=tuple(pictures))


def confused_pairs(
    matrices: Mapping[str, pd.DataFrame], tables: Mapping[str, pd.DataFrame], album: Album
) -> Section:
    """Returns the section of the classes confused most, with photos of validation.

    Args:
        matrices: by split, counts; rows are the truth, columns the prediction.
        tables: by split, predictions; see `chosen`.
        album: photos; those in `chosen`, at least.
    """
    pairs = {split: confusion.most_confused(matrix) for split, matrix in matrices.items()}
    found = tuple(
        Table(f"Most confused, {SPLITS[split]}", frame)
        for split, frame in pairs.items()
        if len(frame)
    )
    pictures = []
    if examples := _examples(pairs["val"], tables) if "val" in pairs else {}:
        shown = "; ".join(f"{true} taken for {predicted}" for true, predicted in examples)
        alt = f"Photos of the most confused pairs of validation: {shown}"
        draw = functools.partial(_confused_sheet, examples, tables["val"], album)
        pictures.append(Picture("confused_pairs", alt, draw, dpi=120, is_photos=True, is_wide=True))
    text = "Rows are photos of one class taken for another; count is their number, share that of "
    text += "the true class's photos. The first two photos of a sheet's row are of the training "
    text += "split: typical ones of the true and of the predicted class."
    if not found:
        text = "No photo of training or validation is taken for another class."
    return Section("Confused pairs", text, found, tuple(pictures))


def prediction_sheets(tables: Mapping[str, pd.DataFrame], album: Album, seed: int) -> Section:
    """Returns the section of photos with their predictions.

    Args:
        tables: by split, predictions; see `chosen`.
        album: photos; those in `chosen`, at least.
        seed: of the random choice.
    """
    pictures = []
    for split, table in tables.items():
        for kind, rows in _sheets(table, seed).items():
            title = f"{SPLITS[split].capitalize()}: {kind}"
            alt = f"{title}. {'; '.join(predictions.titles(rows)[0])}".replace("\n", " ")
            draw = functools.partial(_prediction_sheet, rows, album[split], title)
            name = f"predictions_{split}_{kind.replace(' ', '_')}"
            pictures.append(Picture(name, alt, draw, dpi=120, is_photos=True))
    text = "Predicted name above each photo; in red, with the true name, where it is wrong."
    return Section("Predictions", text, pictures=tuple(pictures))


def disputed_labels(table: pd.DataFrame | None, pixels: Mapping[int, np.ndarray]) -> Section:
    """Returns the section of validation photos whose label looks wrong.

    Args:
        table: `disputed_labels.csv`, each row labeled with its photo's number; None if the scores
            are of a version that had none.
        pixels: photos by number, those in `chosen`; none: there is no picture.
    """
    if table is None:
        return Section("Disputed labels", "Earlier versions did not look; evaluate.py does.")
    if not len(table):
        return Section("Disputed labels", "The model disputes no label of validation.")
    text = (
        f"{len(table)} validation photos are more of another class by the model than photos with "
        "that label are on the mean (confident learning, Northcutt et al. 2021), ranked by the "
        "probability of their label less that of the suggested one. The label may be wrong, or "
        "the model: look at them. All are in disputed_labels.csv."
    )
    columns = ["id", "name", "suggested_name", "probability", "suggested_probability", "margin"]
    rows = table[columns][:_DISPUTED].rename(columns=lambda name: name.replace("_", " "))
    pictures = []
    if pixels:
        shown = table[: predictions.COUNT]
        texts = [
            f"{name}\n→ {other} {100 * sure:.0f}%?"
            for name, other, sure in shown[
                ["name", "suggested_name", "suggested_probability"]
            ].to_numpy()
        ]
        title = "Validation: most disputed labels"
        alt = f"{title}. {'; '.join(texts)}".replace("\n", " ")
        draw = functools.partial(
            photos.sheet, [pixels[n] for n in shown.index], texts, columns=3, title=title
        )
        pictures.append(Picture("disputed_labels", alt, draw, dpi=120, is_photos=True))
    found = Table(f"The {len(rows)} most disputed labels", rows)
    return Section("Disputed labels", text, (found,), tuple(pictures))


def calibrations(tables: Mapping[str, pd.DataFrame], temperature: Mapping | None = None) -> Section:
    """Returns the section of how sure the model is, and how right.

    Args:
        tables: by split, predictions with the truth; see `chosen`.
        temperature: `calibration.json`, if there is one.
    """
    pictures, rows = [], []
    for split, table in tables.items():
        confidence = table["confidence"].to_numpy()
        right = (table["label"] == table["predicted_label"]).to_numpy()
        bins = calibration.reliability(confidence, right)
        error = calibration.expected_calibration_error(bins)
        means = {"mean confidence": float(confidence.mean()), "accuracy": float(right.mean())}
        rows.append({"split": SPLITS[split], "ECE": error, **means})
        if split == "val" and "calibrated_confidence" in table:
            calibrated = table["calibrated_confidence"].to_numpy()
            after = calibration.reliability(calibrated, right)
            error_after = calibration.expected_calibration_error(after)
            means = means | {"mean confidence": float(calibrated.mean())}
            rows.append({"split": "validation, calibrated", "ECE": error_after, **means})
            alt = f"Reliability diagram, validation, calibrated: ECE {error_after:.3f}"
            draw = functools.partial(
                calibration.reliability_diagram, after, f"{SPLITS[split]}, calibrated"
            )
            pictures.append(Picture("reliability_val_calibrated", alt, draw))
        alt = f"Reliability diagram, {SPLITS[split]}: ECE {error:.3f}"
        draw = functools.partial(calibration.reliability_diagram, bins, SPLITS[split])
        pictures.append(Picture(f"reliability_{split}", alt, draw))
        alt = f"Histogram of the confidence, {SPLITS[split]}: {right.sum()} right, "
        alt += f"{(~right).sum()} wrong, mean confidence {confidence.mean():.3f}"
        draw = functools.partial(calibration.confidence_histogram, confidence, right, SPLITS[split])
        pictures.append(Picture(f"confidence_{split}", alt, draw))
    text = (
        f"ECE, the expected calibration error, is the mean gap between confidence and accuracy in "
        f"{calibration.NUM_BINS} bins of equal width (Guo et al. 2017). Bars below the diagonal: "
        "the model is surer than it is right. Label smoothing makes it less sure."
    )
    if temperature is not None:
        text += (
            f" Calibrated: logits divided by {temperature['temperature']:.3f}, the temperature of "
            "the lowest loss on validation. The figures of it are cross-validated: each photo by a "
            f"temperature that was fitted without it. Loss of validation {temperature['loss']:.4f} "
            f"before, {temperature['calibrated_loss']:.4f} calibrated."
        )
    table = Table("Calibration", pd.DataFrame(rows))
    return Section("Calibration", text, (table,), tuple(pictures))


def stages(last: Mapping) -> Section:
    """Returns the section of the runs that a run goes back to, the first one first.

    Args:
        last: the run: `run`, `data`, `image_size`, `epoch`, `val_macro_f1`, and `before`: the same
            of the one it began with, with `taken` and `with_head`; None if that began anew.
    """
    rows: list[Mapping] = []
    stage: Mapping | None = last
    while stage is not None:
        rows.insert(0, stage)
        stage = stage.get("before")
    frame = pd.DataFrame(
        [
            (
                stage["run"],
                stage.get("data", ""),
                stage.get("image_size", ""),
                stage["epoch"],
                "–" if pd.isna(stage.get("val_macro_f1")) else f"{stage['val_macro_f1']:.4f}",
                "" if stage is last else stage["taken"],
                "" if stage is last or stage.get("with_head", True) else "a new head",
            )
            for stage in rows
        ],
        columns=["run", "data", "image size", "epoch", "validation F1", "taken", "then"],
    )
    text = "Each run began with the weights of the one above it, after the epoch that is given."
    return Section("Stages", text, (Table("Runs", frame),))


def time_spent(seconds: Mapping[str, float]) -> Section:
    """Returns the section of where the wall time of the training went.

    Args:
        seconds: of each kind, with `wall` for all of it, and `goodput`, a share of 1.
    """
    names = {
        "train": "steps that moved training on",
        "input": "waiting for photos",
        "compile": "first calls, which compile",
        "start": "start: TensorFlow, data, model",
        "validation": "validation",
        "checkpoint": "checkpoints",
        "lost": "done again after a kill",
        "other": "everything else",
        "wall": "in all",
    }
    frame = pd.DataFrame(
        [(text, f"{seconds[n]:,.1f}", f"{seconds[n] / seconds['wall']:.1%}")
         for n, text in names.items()],
        columns=["what", "seconds", "share"],
    )  # fmt: skip
    text = f"Goodput, the share of the wall time that moved training on: {seconds['goodput']:.1%}."
    return Section("Time", text, tables=(Table("Where the time went", frame),))


def configuration(
    flags: Mapping, defaults: Mapping, evaluated: Mapping, environment: Mapping
) -> Section:
    """Returns the section of the flags and of what the run ran on.

    Args:
        flags: of the run, resolved, by name.
        defaults: of the flags.
        evaluated: what the flags that scores depend on were when the run was scored; some may be
            no flags of a run.
        environment: `environment.json`.
    """
    frame = pd.DataFrame(
        [(f"--{name}", _plain(value), _plain(defaults[name])) for name, value in flags.items()],
        columns=["flag", "value", "default"],
    )
    about = pd.DataFrame(
        [(name.replace("_", " "), _plain(value)) for name, value in environment.items()],
        columns=["name", "value"],
    )
    changed = frame[frame["value"] != frame["default"]]
    others = pd.DataFrame(
        [
            (f"--{name}", _plain(value), _plain(flags.get(name, "")))
            for name, value in evaluated.items()
            if value != flags.get(name, "")
        ],
        columns=["flag", "evaluated with", "trained with"],
    )
    tables = (
        Table("Flags that differ from their defaults", changed),
        *([Table("Flags of this evaluation that differ", others)] if len(others) else []),
        Table("Environment", about, folded=True),
        Table("All flags", frame, folded=True),
    )
    return Section("Configuration", tables=tables)


def chosen(
    matrices: Mapping[str, pd.DataFrame],
    tables: Mapping[str, pd.DataFrame],
    seed: int,
    disputed: pd.DataFrame | None = None,
) -> dict[str, list[int]]:
    """Returns which photos of each split the report shows, by number in the split.

    Args:
        matrices: by split, counts; rows are the truth, columns the prediction.
        tables: by split, `predictions_*.csv`, each row labeled with its photo's number.
        seed: of the random choice.
        disputed: `disputed_labels.csv`, labeled in the same way.
    """
    numbers = {
        split: {n for rows in _sheets(table, seed).values() for n in rows.index}
        for split, table in tables.items()
    }
    if disputed is not None:
        numbers["val"].update(disputed.index[: predictions.COUNT])
    if "val" not in matrices:
        return {split: sorted(found) for split, found in numbers.items()}
    examples = _examples(confusion.most_confused(matrices["val"]), tables)
    for train, val in examples.values():
        if known := [n for n in train if n is not None]:
            numbers["train"].update(known)
        numbers["val"].update(val)
    return {split: sorted(found) for split, found in numbers.items()}


def _sheets(table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """The predictions that are shown of a split, by what they are chosen for."""
    by_chance = {"random": predictions.random(table, seed)}
    if "loss" in table:
        return by_chance | {"highest loss": predictions.worst(table)}
    return by_chance | {"least confident": predictions.least_confident(table)}


def _prediction_sheet(rows: pd.DataFrame, pixels: Mapping[int, np.ndarray], title: str) -> Figure:
    return predictions.sheet(rows, [pixels[number] for number in rows.index], title)


def _examples(
    pairs: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, str], tuple[list[int | None], list[int]]]:
    """By pair of classes: a training photo of each, or None, and the mistaken validation photos."""
    typical = confusion.typical(tables["train"]) if "train" in tables else {}
    return {
        (true, predicted): (
            [typical.get(true), typical.get(predicted)],
            confusion.confused_photos(tables["val"], true, predicted, _MISTAKEN),
        )
        for true, predicted in pairs[["true", "predicted"]][:_EXAMPLES].to_numpy()
    }


def _confused_sheet(examples: Mapping, table: pd.DataFrame, album: Album) -> Figure:
    most = max(len(val) for _, val in examples.values())
    pixels, texts, rows = [], [], []
    for (true, predicted), (train, val) in examples.items():
        rows.append(f"{true}, taken for {predicted}")
        lacking = most - len(val)
        pixels += [None if number is None else album["train"][number] for number in train]
        pixels += [album["val"][number] for number in val] + [None] * lacking
        texts += [f"train: {true}", f"train: {predicted}"]
        texts += [f"{100 * sure:.0f}% sure" for sure in table.loc[val, "confidence"]]
        texts += [""] * lacking
    title = "Most confused pairs of validation"
    return photos.sheet(pixels, texts, columns=2 + most, title=title, row_titles=rows)


def _diagonal(matrix: pd.DataFrame) -> str:
    right = int(np.trace(matrix.to_numpy()))
    return f"{right} photos on the diagonal, as they should be"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(inner) for inner in value)
    return str(value)
