"""A run that version 0.1 made is evaluated, and one that it began is finished.

`tests/fixtures/run_of_0_1` was written by commit e8f6815, on TensorFlow 2.21 and 2 CPU replicas:
`finished/` by one command, `stopped/` by the same one and a signal in the seventh of 11 epochs.
Nothing is augmented: draws have names now, and their numbers are other ones.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from flowers_tpu.runs.folder import RunFolder
from tests.calling import call

FIXTURES = Path("tests/fixtures/run_of_0_1")
FINISHED = FIXTURES / "finished"


@pytest.fixture
def copy(tmp_path):
    """Copies one of the runs, so that nothing is written to it."""

    def copy(name):
        shutil.copytree(FIXTURES / name, tmp_path / name)
        return tmp_path / name

    return copy


def assert_same_tables(folder):
    """As machines round, and versions of TensorFlow."""
    for path in sorted(folder.glob("*.csv")):
        if path.name not in ("timing.csv", "goodput.csv", "disputed_labels.csv"):
            expected, table = pd.read_csv(FINISHED / path.name), pd.read_csv(path)
            later = ("kept", "calibrated_confidence")  # columns of versions since
            table = table[[name for name in table if name not in later]]
            pd.testing.assert_frame_equal(table, expected, rtol=1e-4, obj=path.name)
    scores = [json.loads((f / "scores.json").read_text()) for f in (folder, FINISHED)]
    assert scores[0].keys() == scores[1].keys() == {"train", "val"}
    for split, values in scores[1].items():
        now = {
            n: v for n, v in scores[0][split].items() if n not in ("macro_f1_low", "macro_f1_high")
        }
        assert now == pytest.approx(values, rel=1e-4)


def test_it_is_evaluated_and_predicts(copy, capsys):
    folder = copy("finished")
    kept = ("history.csv", "timing.csv")
    for path in [*folder.glob("*.csv"), folder / "scores.json"]:
        if path.name not in kept:
            path.unlink()
    for command in ("evaluate", "predict"):
        code, (_, err) = call(command, f"--run_dir={folder}"), capsys.readouterr()
        assert code == 0, err
        assert err.count("made by an earlier version") == 1, err
    assert_same_tables(folder)
    assert {path.name for path in folder.iterdir()} >= {
        *(f"predictions_{split}.csv" for split in ("train", "val", "test")),
        *("submission.csv", "confusion_val.csv", "classification_report_train.csv"),
    }


def flags_of(folder):
    """Those of the command that began the run, in another place; only the loss was watched then."""
    command = RunFolder(str(folder)).read_json("environment.json")["command"]
    return [*command[1:-1], f"--run_dir={folder}", "--monitor=val_loss"]


def test_what_it_began_is_finished(copy, capsys):
    folder = copy("stopped")
    code, (out, err) = call("train", *flags_of(folder)), capsys.readouterr()
    assert code == 0, err
    assert err.count("made by an earlier version") == 1, err
    assert "Continuing in epoch 7, after step 20." in out
    assert_same_tables(folder)
    # Of which epochs the weights were kept: the last of them has the lowest loss of all.
    kept = pd.read_csv(folder / "history.csv").set_index("epoch")["kept"]
    assert kept.index[kept].tolist() == [2, 3, 4, 5, 8, 9]
    assert (folder / "submission.csv").exists()


def test_what_it_began_may_go_on_watching_something_else(copy, capsys):
    """The best so far was kept by its loss; of the rest the one of the highest F1 is."""
    folder = copy("stopped")
    assert call("train", *flags_of(folder), "--monitor=val_macro_f1") == 0, capsys.readouterr().err
    history = pd.read_csv(folder / "history.csv").set_index("epoch")
    assert history.index[history["kept"]].tolist() == [2, 3, 4, 5, 8, 9, 10]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["val"]["macro_f1"] == history["val_macro_f1"].max() == history["val_macro_f1"][10]


def test_a_finished_one_prints_its_scores(copy, capsys):
    folder = copy("finished")
    assert call("train", *flags_of(folder)) == 0
    out = capsys.readouterr().out
    assert f"{folder} is finished" in out
    scores = json.loads((folder / "scores.json").read_text())
    assert f"{scores['val']['macro_f1']:.4f}" in out


def test_other_flags_are_refused(copy, capsys):
    folder = copy("stopped")
    assert call("train", *flags_of(folder), "--dropout=0.5", "--global_batch_size=16") == 2
    err = capsys.readouterr().err
    assert "--global_batch_size was 0, is 16; --dropout was 0.1, is 0.5" in err


def test_it_is_compared(copy, capsys, tmp_path):
    paths = [copy("finished"), copy("stopped")]
    assert call("compare", *paths, f"--output={tmp_path}/c.png") == 0, capsys.readouterr().err
    assert "No flag differs." in capsys.readouterr().out
