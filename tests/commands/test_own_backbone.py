"""A run on a network of one's own, evaluated at another size than it was trained at."""

import json

import numpy as np
import pandas as pd
import tensorflow as tf

from tests.calling import call
from tests.photos import write_data_set


def test_a_run_stays_whole_without_the_file_it_began_with(tmp_path, capsys):
    images = tf.keras.Input((16, 16, 3))
    x = tf.keras.layers.Rescaling(1 / 255)(images)
    file = tmp_path / "own.h5"
    tf.keras.Model(images, tf.keras.layers.Conv2D(8, 3, activation="relu")(x)).save(file)
    data, run = write_data_set(tmp_path / "data"), tmp_path / "run"
    flags = [
        *(f"--data_dir={data}", f"--backbone={file}", f"--run_dir={run}", "--tpu=local"),
        *("--image_size=24", "--eval_image_size=32", "--warmup_epochs=1", "--epochs=2"),
        *("--batch_size_per_replica=4", "--learning_rate=1e-2", "--notensorboard", "--noreport"),
    ]
    assert call("train", *flags) == 0, capsys.readouterr().err
    assert (run / "backbone.h5").read_bytes() == file.read_bytes()
    history = pd.read_csv(run / "history.csv")
    scores = json.loads((run / "scores.json").read_text())["val"]
    kept = history[history["kept"]].iloc[-1]
    assert np.isclose(kept["val_macro_f1"], scores["macro_f1"])
    assert np.isclose(kept["val_loss"], scores["loss"], rtol=1e-5)

    file.unlink()
    assert call("train", *flags) == 0
    assert "is finished" in capsys.readouterr().out
    same, other = tmp_path / "same", tmp_path / "other"
    common = (f"--run_dir={run}", "--noreport")
    assert call("evaluate", *common, f"--output_dir={same}") == 0, capsys.readouterr().err
    assert json.loads((same / "scores.json").read_text())["val"] == scores
    size = "--eval_image_size=24"
    assert call("evaluate", *common, f"--output_dir={other}", size) == 0, capsys.readouterr().err
    assert json.loads((other / "scores.json").read_text())["val"]["loss"] != scores["loss"]
    for replicas in (1, 2):
        views = ("--views=flip,scales", f"--replicas={replicas}", f"--output_dir={tmp_path}/v")
        assert call("evaluate", *common, *views[:2], f"{views[2]}{replicas}") == 0
    seen = [json.loads((tmp_path / f"v{n}" / "scores.json").read_text())["val"] for n in (1, 2)]
    assert seen[0] == seen[1] and seen[0]["examples"] == 9 and seen[0]["loss"] != scores["loss"]

    assert call("train", *flags, "--overwrite") == 2
    assert f"--backbone={file}: there is no such file" in capsys.readouterr().err
