"""The temperature of a run: fitted on its validation photos, and applied to its predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from flowers_tpu.evaluation import temperature
from flowers_tpu.evaluation.outputs import Outputs
from flowers_tpu.reports import calibration
from flowers_tpu.runs.folder import RunFolder, outputs_file, predictions_file
from flowers_tpu.system import files

FILE = "calibration.json"
COLUMN = "calibrated_confidence"


def made_by(checkpoint: str, evaluation_size: int, views: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a temperature holds for: other weights, size or views are another model."""
    made = {"checkpoint": checkpoint, "evaluation_size": evaluation_size}
    return made | {"views": list(views) or None}


def calibrate(folder: RunFolder, made: dict[str, Any], splits: Sequence[str]) -> None:
    """Fits the temperature of a scored folder, and adds the column to tables of predictions.

    In the table of validation each photo has the temperature that was fitted without it.

    Args:
        folder: of a run or an ensemble, with the outputs of `val` and of `splits`.
        made: see `made_by`; empty for an ensemble.
        splits: whose tables get the column.
    """
    if not folder.has(outputs_file("val")):
        return  # nothing validates
    val = _read(folder, "val")
    if len(np.unique(val.fingerprints)) < 2 or not np.isfinite(val.logits).all():
        logging.warning(
            "%s: no temperature is fitted: it takes two validation photos, and finite outputs",
            folder.path,
        )
        if folder.has(FILE):
            files.remove(folder.file(FILE))  # of other scores
        return
    fitted = temperature.cross_fit(val.logits, val.known_labels, val.fingerprints)
    right = val.logits.argmax(axis=1) == val.labels
    found = {**made, "temperature": fitted.temperature, "photos": len(right)}
    for name, divisor in (("", 1.0), ("calibrated_", fitted.of_each)):
        bins = calibration.reliability(temperature.confidences(val.logits, divisor), right)
        found[f"{name}loss"] = temperature.loss(val.logits, val.known_labels, divisor)
        found[f"{name}ece"] = calibration.expected_calibration_error(bins)
    folder.write_json(FILE, found)
    for name in splits:
        of_split = fitted.of_each if name == "val" else fitted.temperature
        _add_column(folder, name, of_split)


def apply(folders: Sequence[RunFolder], made: dict[str, Any], output: RunFolder) -> None:
    """Adds the column to the predictions of the test photos, if the model has a temperature.

    Args:
        folders: where the temperature is looked for, in this order.
        made: see `made_by`.
        output: where the predictions are.
    """
    if (found := read(folders, made)) is not None:
        _add_column(output, "test", found)


def read(folders: Sequence[RunFolder], made: dict[str, Any]) -> float | None:
    """Returns the temperature that was fitted for just this model; None if there is none."""
    for folder in folders:
        if folder.has(FILE):
            known = folder.read_json(FILE)
            if made == {name: known.get(name) for name in made}:
                return known["temperature"]
    return None


def _read(folder: RunFolder, split: str) -> Outputs:
    return Outputs.from_bytes(files.read_bytes(folder.file(outputs_file(split))))


def _add_column(folder: RunFolder, split: str, divisor: float | np.ndarray) -> None:
    texts = {"id": str, "name": str, "predicted_name": str}
    table = folder.read_texts(predictions_file(split), dtype=texts)
    table[COLUMN] = temperature.confidences(_read(folder, split).logits, divisor)
    folder.write_table(predictions_file(split), table)
