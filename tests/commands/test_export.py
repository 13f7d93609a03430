"""Whole exports of runs, trained on one replica and on two."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from flowers_tpu.models.export import keras_file, tflite
from tests.calling import call

FORMATS = [
    "savedmodel",
    "keras",
    "tflite",
    pytest.param(
        "onnx",
        marks=pytest.mark.skipif(
            not (importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")),
            reason="needs the extra `export` (tf2onnx, onnx, onnxruntime)",
        ),
    ),
]
MOST = {"savedmodel": 1e-5, "keras": 1e-5, "float": 1e-5, "float16": 1e-3, "onnx": 1e-4}


def val_jpegs(run, replicas):
    shards = sorted(map(str, (run.parent / f"data{replicas}" / "val").iterdir()))
    records = tf.data.TFRecordDataset(shards).as_numpy_iterator()
    examples = map(tf.train.Example.FromString, records)
    return [example.features.feature["image"].bytes_list.value[0] for example in examples]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("format_name", FORMATS)
def test_it_agrees_with_the_run(trained_runs, exported, format_name, replicas):
    folder = exported(format_name, replicas)
    about = json.loads((folder / "export.json").read_text())
    scores = json.loads((trained_runs[replicas] / "scores.json").read_text())
    kinds = list(tflite.FILES) if format_name == "tflite" else [format_name]
    assert [one["kind"] for one in about["checked"]] == kinds
    for one in about["checked"]:
        most = MOST.get(one["kind"], 0.1)
        assert 0 <= one["difference"] <= most and one["from_table"] <= most, one
        assert (folder / one["file"]).exists() and one["size"] > 10_000
        if one["kind"] != "int8":
            assert one["accuracy"] == pytest.approx(scores["val"]["accuracy"])
    labels = (folder / "labels.txt").read_text().splitlines()
    assert labels == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_saved_model_gives_the_predictions_of_the_run(trained_runs, exported, replicas):
    run = trained_runs[replicas]
    table = pd.read_csv(run / "predictions_val.csv")
    model = tf.saved_model.load(str(exported("savedmodel", replicas)))
    answer = model.signatures["serving_default"](jpeg_bytes=tf.constant(val_jpegs(run, replicas)))
    names = [name.decode() for name in answer["names"][:, 0].numpy()]
    assert names == list(table["predicted_name"])
    np.testing.assert_allclose(answer["confidences"][:, 0], table["confidence"], atol=1e-5)
    probabilities = answer["probabilities"].numpy()[np.arange(len(table)), table["label"]]
    np.testing.assert_allclose(-np.log(probabilities), table["loss"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_saved_model_looks_several_times(trained_runs, tmp_path, capsys, calibrated):
    """Its probabilities are those of predict.py with the same views, calibrated or not."""
    run, out, seen = trained_runs[1], tmp_path / "out", tmp_path / "seen"
    views = "--views=flip,scales,crops"
    assert call("evaluate", f"--run_dir={run}", views, f"--output_dir={seen}", "--noreport") == 0
    flags = (views, f"--output_dir={out}")
    if calibrated:
        assert call("export", run, "--calibrated", *flags) == 2
        assert "evaluate.py" in (err := capsys.readouterr().err) and views in err
        run = shutil.copytree(run, tmp_path / "run")
        shutil.copy(seen / "calibration.json", run)
        flags += ("--calibrated",)
    assert call("export", run, *flags) == 0
    about = json.loads((out / "export.json").read_text())
    assert about["views"] == ["crops", "flip", "scales"]
    assert about["checked"][0]["difference"] < 1e-5
    table = pd.read_csv(seen / "predictions_val.csv")
    answer = tf.saved_model.load(str(out)).signatures["serving_default"](
        jpeg_bytes=tf.constant(val_jpegs(trained_runs[1], 1))
    )
    logits = np.load(seen / "outputs_val.npz")["logits"].astype(np.float64)
    logits /= about["temperature"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    if not calibrated:
        np.testing.assert_allclose(answer["confidences"][:, 0], table["confidence"], atol=1e-5)
    assert "several times" in (out / "MODEL_CARD.md").read_text()
    assert call("export", run, views, "--format=keras") == 2
    assert "only a SavedModel holds" in capsys.readouterr().err


def loading_lines(folder):
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    return code


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("format_name", FORMATS)
def test_the_five_lines_of_its_card(trained_runs, exported, tmp_path, monkeypatch, format_name):
    folder = tmp_path / "elsewhere"
    shutil.copytree(exported(format_name, 1), folder)
    (folder / "photo.jpg").write_bytes(val_jpegs(trained_runs[1], 1)[0])
    code = loading_lines(folder)
    assert len(code.splitlines()) <= 5
    if format_name == "keras":  # in a process that has nothing of this package
        code += "\nimport sys; assert 'flowers_tpu' not in sys.modules"
        own = ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
        environment = {name: value for name, value in os.environ.items() if name not in own}
        out = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=100,
        ).stdout  # fmt: skip
    else:
        out = captured(code, folder, monkeypatch)
    name = pd.read_csv(trained_runs[1] / "predictions_val.csv")["predicted_name"][0]
    assert name in out.splitlines()[-1]


def captured(code, folder, monkeypatch):
    lines = []
    monkeypatch.chdir(folder)
    exec(code, {"print": lambda *words: lines.append(" ".join(map(str, words)))})
    return "\n".join(lines)


def test_what_the_card_says(trained_runs, exported):
    card = (exported("tflite", 2) / "MODEL_CARD.md").read_text(encoding="utf-8")
    scores = json.loads((trained_runs[2] / "scores.json").read_text())["val"]
    titles = re.findall("^#+ (.*)$", card, re.MULTILINE)
    assert titles == [
        *("Flowers: 3 classes by small_cnn", "How to load it", "Files", "Data", "Recipe"),
        *("Scores", "Calibration", "Limits", "Licence of the weights"),
    ]
    (f1, low, high) = re.search(r"macro F1 \| (\S+) \| (\S+) to (\S+) \|", card).groups()
    assert float(f1) == pytest.approx(scores["macro_f1"], abs=5e-5)
    assert float(low) <= float(f1) <= float(high)
    assert f"| accuracy | {scores['accuracy']:.4f} |" in card
    assert "--image_size=32" in card and "--noflip_up_down" in card and "8 photos a step" in card
    assert "train: 24 photos" in card and "val: 37 photos" in card
    assert "initial weights: random" in card and "nobody else has a right in them" in card
    assert "expected calibration error" in card and "Not calibrated" in card
    assert str(trained_runs[2].parent) not in card  # nothing of the machine
    for name in tflite.FILES.values():
        assert f"`{name}`" in card


def test_by_default_it_is_in_the_run_and_replaced_there(trained_runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_runs[1], run)
    for _ in range(2):
        assert call("export", f"--run_dir={run}", "--format=keras") == 0
        out = capsys.readouterr().out
        assert f"export: {run}/export/keras" in out and "validation accuracy" in out
        assert "TF_USE_LEGACY_KERAS=1" in out
        assert os.listdir(run / "export") == ["keras"]
    before = (run / "export/keras/model.keras").read_bytes()
    (run / "export/keras/mine.txt").write_text("precious")
    assert call("export", run, "--format=keras") == 2
    assert "mine.txt" in capsys.readouterr().err
    assert (run / "export/keras/mine.txt").read_text() == "precious"
    assert (run / "export/keras/model.keras").read_bytes() == before


def test_a_model_that_gives_other_answers_is_not_exported(
    trained_runs, tmp_path, monkeypatch, capsys
):
    opened = keras_file.opened
    monkeypatch.setattr(keras_file, "opened", lambda folder: lambda x: opened(folder)(x) + 0.002)
    flags = ("--format=keras", f"--output_dir={tmp_path / 'out'}")
    assert call("export", trained_runs[1], *flags) == 1
    assert re.search(
        r"model.keras: .*differ by up to 0.002 .*1e-05.*nothing is exported",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the folder of a run first"),
        (["nowhere"], "--run_dir=nowhere: no run there"),
        (["{run}", "more"], "unexpected argument 'more'"),
        (["{run}", "--format=pickle"], "savedmodel"),
        (["{run}", "--seed=7"], "--seed cannot differ"),
        (["{run}", "--output_dir=gs://bucket/model"], "must be local"),
        (["{run}", "--output_dir={run}"], "holds a run; choose another folder"),
    ],
)
def test_wrong_requests(trained_runs, capsys, arguments, message):
    arguments = [argument.replace("{run}", str(trained_runs[1])) for argument in arguments]
    assert call("export", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err, err
    assert not (trained_runs[1] / "export").exists()
