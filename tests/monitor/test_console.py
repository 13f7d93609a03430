"""The lines of a run that a person reads."""

import math
import types

from flowers_tpu.monitor import console
from flowers_tpu.runs.folder import RunDirectory

PLAN = types.SimpleNamespace(warmup_epochs=0, epochs=3)
ROW = {"epoch": 1, "stage": "finetune", "learning_rate": 1e-3, "val_loss": 0.5}
ROW |= dict.fromkeys(
    ("loss", "accuracy", "macro_f1", "top5_accuracy", "val_accuracy", "val_macro_f1"), 0.25
)
SCORES = {"loss": 0.5, "accuracy": 0.25, "top5_accuracy": 0.75, "macro_f1": 0.125}


def test_an_epoch_tells_its_speed_where_it_has_one(capsys):
    times = {"train_seconds": 8.0, "val_seconds": 2.0, "train_images_per_second": 123.4}
    console.print_epoch(PLAN, [ROW], times)
    console.print_epoch(PLAN, [ROW], times | {"train_images_per_second": math.nan})
    known, unknown = capsys.readouterr().out.splitlines()
    assert known.endswith("10 s, 123 images/s  best so far")
    assert unknown.endswith("10 s, – images/s  best so far")


def test_scores_come_with_the_files_there_are(tmp_path, capsys):
    run = RunDirectory(str(tmp_path))
    console.print_scores(run, {"val": {"examples": 1234, **SCORES}})
    out = capsys.readouterr().out
    assert out.splitlines()[2].split() == ["val", "1,234", "0.5000", "0.2500", "0.7500", "0.1250"]
    assert "submission.csv" not in out and "report.html" not in out
    assert f"scripts/predict.py --run_dir={tmp_path} writes the submission" in out
    for name in ("submission.csv", "report.html"):
        (tmp_path / name).write_text("")
    console.print_scores(run, {"val": {"examples": 1234, **SCORES}})
    out = capsys.readouterr().out
    assert "submission.csv" in out and "report.html" in out and "predict.py" not in out
