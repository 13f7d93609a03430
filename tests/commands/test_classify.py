import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import ExifTags, Image

from flowers_tpu.evaluation.predictions import usual_confidence
from flowers_tpu.runs.folder import RunFolder
from tests.calling import call


@pytest.fixture
def classify(trained_runs, capsys):
    """Gives what the command prints as JSON."""

    def classify(*arguments, run=trained_runs[1], code=0):
        capsys.readouterr()
        assert call("classify", run, *arguments, "--json") == code
        out, err = capsys.readouterr()
        return json.loads(out), err

    return classify


@pytest.fixture
def photos(tmp_path):
    """One scene in many ways, in a folder beside what is no photo of it."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    y, x = np.mgrid[0:120, 0:180].astype(float)
    scene = np.stack([x / 180 * 255, y / 120 * 255, 90 + 0 * x], axis=-1).astype(np.uint8)
    image = Image.fromarray(scene)
    image.save(folder / "a.jpg", quality=95)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    # So held that it has to be turned by 90 degrees, clockwise.
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "b turned.jpg", quality=95, exif=exif)
    image.save(folder / "deeper" / "c.png")
    image.convert("CMYK").save(folder / "deeper" / "d.jpg", quality=95)
    image.resize((1800, 1200)).save(folder / "e.JPEG", quality=95)
    (folder / "f.jpg").write_bytes((folder / "a.jpg").read_bytes()[:700])  # cut short
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


def test_a_run_keeps_the_size_of_its_photos(trained_runs):
    kept = [RunFolder(str(run)).read_json("data.json")["splits"] for run in trained_runs.values()]
    assert [splits["val"]["photo_size"] for splits in kept] == [32, 48]


@pytest.mark.parametrize("replicas", [1, 2])
def test_validation_photos_get_the_predictions_of_the_run(
    trained_runs, tmp_path, classify, replicas
):
    run = trained_runs[replicas]
    table = pd.read_csv(run / "predictions_val.csv")
    shards = sorted(map(str, (run.parent / f"data{replicas}" / "val").iterdir()))
    paths = []
    for record in tf.data.TFRecordDataset(shards).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        paths.append(tmp_path / f"{features['id'].bytes_list.value[0].decode()}.jpg")
        paths[-1].write_bytes(features["image"].bytes_list.value[0])
    found, _ = classify(*paths, run=run)
    assert [one["photo"] for one in found["photos"]] == list(map(str, paths))
    best = [one["names"][0] for one in found["photos"]]
    assert [name["name"] for name in best] == list(table["predicted_name"])
    np.testing.assert_allclose(
        [name["probability"] for name in best], table["confidence"], atol=1e-5
    )
    for one in found["photos"]:  # of three classes
        probabilities = [name["probability"] for name in one["names"]]
        assert len(probabilities) == 3 and sum(probabilities) == pytest.approx(1)
        assert probabilities == sorted(probabilities, reverse=True)
    assert found["not_sure_below"] == usual_confidence(table["confidence"])
    # One stands so near the bound that rounding may take it below.
    expected = (table["confidence"] >= found["not_sure_below"]).to_numpy()
    differing = expected != np.array([one["sure"] for one in found["photos"]])
    assert differing.sum() <= 1 and 1 <= (~expected).sum() <= 2


def test_any_size_format_and_orientation(photos, classify):
    found, _ = classify(photos)
    names = [os.path.relpath(one["photo"], photos) for one in found["photos"]]
    assert names == ["a.jpg", "b turned.jpg", "e.JPEG", "deeper/c.png", "deeper/d.jpg"]
    first, *others = (one["names"] for one in found["photos"])
    for other in others:
        for one, same in zip(first, other, strict=True):
            assert one["name"] == same["name"]
            assert one["probability"] == pytest.approx(same["probability"], abs=0.02)
    (unread,) = found["unreadable"]
    assert unread["photo"] == str(photos / "f.jpg") and "truncated" in unread["reason"]


def test_it_is_near_what_the_saved_model_says(photos, classify, exported):
    found, _ = classify(photos / "a.jpg", photos / "b turned.jpg", photos / "e.JPEG")
    model = tf.saved_model.load(str(exported("savedmodel", 1)))
    paths = [one["photo"] for one in found["photos"]]
    jpegs = tf.stack([tf.io.read_file(path) for path in paths])
    answer = model.signatures["serving_default"](jpeg_bytes=jpegs)
    best = [one["names"][0] for one in found["photos"]]
    assert [one["name"].encode() for one in best] == list(answer["names"][:, 0].numpy())
    np.testing.assert_allclose(
        answer["confidences"][:, 0], [one["probability"] for one in best], atol=0.02
    )


def test_the_table_and_the_sheet(trained_runs, photos, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    arguments = (trained_runs[1], photos, "missing.jpg", f"--output={sheet}")
    assert call("classify", *arguments) == 0
    out = capsys.readouterr().out
    assert f"{photos}/a.jpg" in out and " %  class 1" in out
    assert "missing.jpg: cannot be read (No such file or directory)" in out
    assert "f.jpg: cannot be read (image file is truncated" in out
    bound = usual_confidence(pd.read_csv(trained_runs[1] / "predictions_val.csv")["confidence"])
    assert f"the best name is below {100 * bound:.1f} %, the confidence that 95 %" in out
    assert Image.open(sheet).format == "PNG"
    before = sheet.read_bytes()
    assert call("classify", *arguments) == 2
    assert f"--output={sheet}: exists" in capsys.readouterr().err
    assert sheet.read_bytes() == before


def test_what_is_below_the_usual_confidence_is_not_sure(trained_runs, photos, tmp_path, classify):
    run = tmp_path / "run"
    shutil.copytree(trained_runs[1], run)
    found, _ = classify(photos / "a.jpg", run=run)
    confidence = found["photos"][0]["names"][0]["probability"]
    table = pd.read_csv(run / "predictions_val.csv")
    for bound, sure in ((confidence - 0.01, True), (confidence + 0.01, False)):
        table["confidence"] = bound
        table.to_csv(run / "predictions_val.csv", index=False)
        found, _ = classify(photos / "a.jpg", run=run)
        assert found["not_sure_below"] == bound and found["photos"][0]["sure"] is sure
    (run / "predictions_val.csv").unlink()
    found, _ = classify(photos / "a.jpg", run=run)
    assert found["not_sure_below"] is None and found["photos"][0]["sure"]


def test_neither_data_nor_initial_weights_are_needed(trained_runs, photos, tmp_path, classify):
    run = tmp_path / "run"
    shutil.copytree(trained_runs[1], run)
    config = json.loads((run / "config.json").read_text())
    config["flags"] |= {"data_dir": "gone", "weights": "gone.h5"}
    (run / "config.json").write_text(json.dumps(config))
    found, _ = classify(photos / "a.jpg", run=run)
    assert found["photos"] == classify(photos / "a.jpg")[0]["photos"]
    assert sorted(os.listdir(run)) == sorted(os.listdir(trained_runs[1]))  # nothing is written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected photos, or folders of photos"),
        (["{folder}/empty"], "empty: no photos there"),
        (["{folder}/photo.jpg"], "none of 1 photos could be read"),
        (["{folder}/photo.jpg", "--output=sheet.jpg"], "expected the name of a PNG file"),
        (["{folder}/photo.jpg", "--backbone=tiny"], "--backbone cannot differ"),
    ],
)
def test_wrong_requests(trained_runs, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"no photo")
    arguments = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    assert call("classify", trained_runs[1], *arguments) == 2
    assert message in capsys.readouterr().err
