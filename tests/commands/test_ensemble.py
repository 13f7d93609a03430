"""The command on finished runs: what it writes, and what it refuses."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from flowers_tpu.evaluation.outputs import Outputs
from tests.calling import call
from tests.finished_runs import write_run
from tests.photos import write_data_set


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs on one data set; the outputs of the second are by chance."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_data_set(folder / "data", size=32, val=37)
    for name in ("one", "two"):
        write_run(folder / name, data)
    for path in (folder / "two").glob("outputs_*.npz"):
        outputs = Outputs.from_bytes(path.read_bytes())
        chance = np.random.default_rng(1).normal(size=outputs.logits.shape).astype(np.float32)
        outputs.logits[:] = chance
        path.write_bytes(outputs.to_bytes())
    return folder / "one", folder / "two"


def test_it_writes_like_a_run(runs, tmp_path, capfd):
    output = tmp_path / "out"
    assert call("ensemble", *runs, f"--output_dir={output}", "--weights=search") == 0
    table = pd.read_csv(output / "predictions_val.csv")
    scores = json.loads((output / "scores.json").read_text())
    expected = f1_score(table["label"], table["predicted_label"], average="macro")
    assert scores["val"]["macro_f1"] == pytest.approx(expected) and len(table) == 37
    assert scores["train"]["examples"] == 24
    submission = pd.read_csv(output / "submission.csv")
    predicted = Outputs.from_bytes((output / "outputs_test.npz").read_bytes())
    assert submission["label"].tolist() == predicted.logits.argmax(axis=1).tolist()
    page = (output / "report.html").read_text()
    about = json.loads((output / "ensemble.json").read_text())
    assert f"{about['runs'][0]['weight']:.4f}"[:5] in page and "cross-validated" in page
    assert {"predictions_test_random.png", "predictions_val_highest_loss.png"} <= set(
        os.listdir(output / "plots")
    )
    assert "Macro F1 of val over the best run" in capfd.readouterr().out


def test_an_earlier_ensemble_is_replaced_and_nothing_else(runs, tmp_path, capfd):
    flags = (f"--output_dir={tmp_path / 'out'}", "--noreport")
    assert call("ensemble", *runs, *flags) == 0 and call("ensemble", *runs, *flags) == 0
    assert not (tmp_path / "out/report.html").exists()
    assert call("ensemble", *runs, f"--output_dir={runs[0]}") == 2
    assert "holds a run; choose another folder" in capfd.readouterr().err


def test_wrong_requests(runs, tmp_path, capfd):
    old = tmp_path / "old"
    shutil.copytree(runs[1], old)
    (old / "outputs_test.npz").unlink()
    output = f"--output_dir={tmp_path / 'out'}"
    for paths, message in (
        ([runs[0]], "expected at least two runs"),
        ([runs[0], f"{runs[0]}/"], "is given twice"),
        ([runs[0], tmp_path], "no run there"),
        ([runs[0], old], f"has no outputs_test.npz, which earlier versions did not write and runs "
         f"that have not ended lack; scripts/predict.py --run_dir={old} makes it"),
    ):  # fmt: skip
        assert call("ensemble", *paths, output) == 2
        assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_disputed_labels_are_listed_and_shown(runs, tmp_path):
    output = tmp_path / "out"
    assert call("ensemble", *runs, f"--output_dir={output}") == 0
    table = pd.read_csv(output / "disputed_labels.csv")
    known = pd.read_csv(output / "predictions_val.csv").set_index("id").loc[table["id"]]
    assert len(table) and (known["label"] != known["predicted_label"]).all()
    assert (table["suggested_label"] != table["label"]).all()
    assert (output / "plots/disputed_labels.png").exists()
    assert table["id"][0] in (output / "report.html").read_text()
