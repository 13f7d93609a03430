"""The temperature of a finished run is in its tables, its report and its export."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from flowers_tpu.evaluation.outputs import Outputs
from flowers_tpu.runs import calibrating
from flowers_tpu.runs.folder import RunFolder
from tests.calling import call


@pytest.fixture
def run(trained_runs, tmp_path):
    return shutil.copytree(trained_runs[1], tmp_path / "run")


def table_and_expected(run, split, divisor):
    logits = Outputs.from_bytes((run / f"outputs_{split}.npz").read_bytes()).logits
    expected = softmax(logits.astype(float) / divisor, 1).max(axis=1)
    return pd.read_csv(run / f"predictions_{split}.csv"), expected


def test_a_trained_run_has_it_in_its_tables(run):
    about = json.loads((run / "calibration.json").read_text())
    for split in ("train", "test"):
        table, expected = table_and_expected(run, split, about["temperature"])
        np.testing.assert_allclose(table["calibrated_confidence"], expected, rtol=1e-9)
    table, _ = table_and_expected(run, "val", 1)
    scores = json.loads((run / "scores.json").read_text())
    assert about["loss"] == pytest.approx(scores["val"]["loss"]) and about["photos"] == len(table)
    right = table["label"] == table["predicted_label"]
    bins = np.ceil(table["calibrated_confidence"] * 15)
    gaps = [abs((right - table["calibrated_confidence"])[bins == b].sum()) for b in set(bins)]
    assert about["calibrated_ece"] == pytest.approx(sum(gaps) / len(table))


def test_prediction_uses_it_for_the_same_weights_and_size_only(run, tmp_path):
    made = calibrating.made_by("best", 32)
    assert calibrating.read([RunFolder(str(run))], made) > 0
    for other in (made | {"checkpoint": "latest"}, made | {"evaluation_size": 48}):
        assert calibrating.read([RunFolder(str(run))], other) is None
    before = pd.read_csv(run / "predictions_test.csv")
    for name, columns in (("best", list(before)), ("latest", list(before)[:-1])):
        output = tmp_path / name
        flags = (f"--run_dir={run}", f"--output_dir={output}", f"--checkpoint={name}")
        assert call("predict", *flags) == 0
        assert list(pd.read_csv(output / "predictions_test.csv")) == columns


def test_the_report_shows_it_before_and_after(run, tmp_path):
    output = tmp_path / "out"
    assert call("evaluate", f"--run_dir={run}", f"--output_dir={output}", "--report") == 0
    about = json.loads((output / "calibration.json").read_text())
    page = (output / "report.html").read_text()
    assert f"{about['temperature']:.3f}" in page and "validation, calibrated" in page
    assert (output / "plots/reliability_val_calibrated.png").exists()


def test_an_export_has_it_if_asked_for(run, tmp_path, capfd):
    """That the file gives the calibrated probabilities, the export checks itself."""
    flags = ("--format=keras", f"--output_dir={tmp_path / 'export'}", "--calibrated")
    assert call("export", run, *flags) == 0
    about = json.loads((run / "calibration.json").read_text())
    made = json.loads((tmp_path / "export/export.json").read_text())
    assert made["temperature"] == about["temperature"] != 1
    card = (tmp_path / "export/MODEL_CARD.md").read_text()
    assert f"Calibrated by temperature {about['temperature']:.3f}" in card
    (run / "calibration.json").unlink()
    assert call("export", run, *flags) == 2
    assert "--calibrated: " in capfd.readouterr().err


def test_one_photo_or_a_broken_model_has_none(run):
    folder = RunFolder(str(run))
    path = run / "outputs_val.npz"
    outputs = Outputs.from_bytes(path.read_bytes())
    outputs.logits[0] = np.nan
    path.write_bytes(outputs.to_bytes())
    calibrating.calibrate(folder, {}, ())
    assert not folder.has(calibrating.FILE)
