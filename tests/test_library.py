"""docs/library.py runs, and comes to what the command's own loop comes to."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.calling import call
from tests.photos import write_data_set


def test_the_example_is_the_first_steps_of_the_command(tmp_path, capsys):
    path = Path(__file__).parents[1] / "docs" / "library.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("l", path))
    module.__spec__.loader.exec_module(module)
    data = write_data_set(tmp_path / "data", train=80, val=12)
    f1 = module.main(str(data), 32)
    losses = [float(x) for x in re.findall(r"step +\d+: loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == module.STEPS == 10

    # 5 steps are an epoch here, so that the command's row is the mean of two times five.
    flags = [
        *(f"--data_dir={data}", "--image_size=32", "--replicas=2", "--backbone=small_cnn"),
        *("--weights=none", "--batch_size_per_replica=8", "--warmup_epochs=0", "--epochs=2"),
        *("--learning_rate=1e-3", "--lr_schedule=constant", f"--run_dir={tmp_path}/run"),
        *("--notensorboard", "--noreport"),
    ]
    assert call("train", *flags) == 0
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    names = rows[0].split(",")
    history = [dict(zip(names, row.split(","), strict=True)) for row in rows[1:]]
    for epoch, row in enumerate(history):
        of_epoch = losses[5 * epoch : 5 * epoch + 5]
        assert sum(of_epoch) / 5 == pytest.approx(float(row["loss"]), abs=2e-3)
    assert f1 == pytest.approx(float(history[1]["val_macro_f1"]), abs=0.05)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["val"]["examples"] == 12
