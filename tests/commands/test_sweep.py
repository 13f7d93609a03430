import re
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flowers_tpu.commands import cli, sweep
from flowers_tpu.reports import sweep as pictures
from flowers_tpu.reports.options import SweepOptions
from flowers_tpu.system import folders
from flowers_tpu.system.errors import RequestError, StoppedError
from tests import finished_runs
from tests.calling import call
from tests.photos import write_data_set

LIST = """
# of every run
--backbone=small_cnn
--epochs=3

[as it is]
[gentler]
--learning_rate=1e-5
--epochs=4
"""


@pytest.fixture
def recipes(tmp_path):
    path = tmp_path / "list.sweep"
    path.write_text(LIST)
    return path


def test_what_a_list_says(recipes):
    assert sweep.read_recipes(str(recipes)) == {
        "as it is": ["--backbone=small_cnn", "--epochs=3"],
        "gentler": ["--backbone=small_cnn", "--epochs=3", "--learning_rate=1e-5", "--epochs=4"],
    }


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("--epochs=3\n", [], r"has no \[name\]"),
        ("[a]\n[a]\n", [], r"line 2: a second recipe called \[a\]"),
        ("[a]\nepochs=3\n", [], r"line 2: expected \[a name\] or a flag .*'epochs=3'"),
        ("[a]\n--run_dir=x\n", [], "line 2: --run_dir=x: each run gets its own"),
        ("[a]\n-seed=1\n", [], "line 2: -seed=1: each run gets its own"),
        ("[a b]\n[a_b]\n", [], r"\[a b\] and \[a_b\] would have one folder, a_b"),
        ("[a]\n[b]\n--epoch=3\n", [], r"\[b\]: .*epoch"),
        ("[a]\n--epochs=-3\n", [], r"\[a\]: --epochs=-3"),
        ("[a]\n", ["--only=b"], r"--only=b: there is no \[b\] in the list, which has a"),
        ("[a]\n", ["--seeds=1,x"], "--seeds=1,x: expected whole numbers"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, capsys, text, flags, expected):
    path = tmp_path / "list.sweep"
    path.write_text(text)
    out = tmp_path / "out"
    assert call("sweep", path, f"--output_dir={out}", *flags) == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not out.exists()


def training_but_for(fails, data, monkeypatch):
    """Writes finished runs instead of training, but for one that fails; gives those begun."""
    begun = []

    def train(job, signals):
        begun.append((job.name, job.seed))
        if begun[-1] == fails:
            Path(f"{job.run_dir}.txt").write_text("many words\ntrain: the end of the world\n")
            return 1
        finished_runs.write_run(job.run_dir, data, seed=job.seed)
        return 0

    monkeypatch.setattr(sweep, "_train", train)
    return begun


def test_a_sweep_of_which_one_run_fails(recipes, tmp_path, monkeypatch, capsys):
    data = write_data_set(tmp_path / "data")
    out = tmp_path / "out"
    begun = training_but_for(("gentler", 7), data, monkeypatch)
    assert call("sweep", recipes, f"--output_dir={out}", "--seeds=3,7") == 1
    said = capsys.readouterr()
    assert begun == [("as it is", 3), ("gentler", 3), ("as it is", 7), ("gentler", 7)]
    assert "1 of 4 runs failed: gentler" in said.err
    rows = pd.read_csv(out / "sweep.csv")
    assert rows["state"].tolist()[:3] == ["finished"] * 3
    assert rows["state"][3] == "failed with exit code 1: train: the end of the world"
    assert rows[["epochs", "best"]].values.tolist()[0] == [4, 3]
    assert (rows["low"][0] < rows["macro_f1"][0] < rows["high"][0]) and rows["minutes"][0] == 4
    summary = pd.read_csv(out / "summary.csv")
    assert summary[["name", "runs"]].values.tolist() == [["as it is", 2], ["gentler", 1]]
    assert (out / "summary.md").read_text() in said.out
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_earlier_calls_stay_if_their_runs_finished(recipes, tmp_path, monkeypatch):
    data = write_data_set(tmp_path / "data")
    out = tmp_path / "out"
    training_but_for(("gentler", 2), data, monkeypatch)
    assert call("sweep", recipes, f"--output_dir={out}", "--seeds=2,1") == 1
    assert call("sweep", recipes, f"--output_dir={out}", "--seeds=10", "--only=as it is") == 0
    rows = pd.read_csv(out / "sweep.csv")
    found = rows[["name", "seed", "state"]].values.tolist()
    assert found == [
        *(["as it is", seed, "finished"] for seed in (1, 2, 10)),
        ["gentler", 1, "finished"],
    ]
    assert pd.read_csv(out / "summary.csv")["runs"].tolist() == [3, 1]
    recipes.write_text("[gentler]\n--backbone=small_cnn\n")  # the other one is gone
    assert call("sweep", recipes, f"--output_dir={out}", "--seeds=1") == 0
    assert pd.read_csv(out / "sweep.csv")["name"].tolist() == ["gentler"]


def test_two_sweeps_in_one_folder_are_refused(recipes, tmp_path, capsys):
    out = str(tmp_path / "out")
    with folders.locked(out, "output_dir"):
        assert call("sweep", recipes, f"--output_dir={out}") == 2
    assert f"--output_dir={out}: is in use by process" in capsys.readouterr().err


def test_means_and_deviations_over_seeds():
    scores = {"a": [0.80, 0.84], "b": [0.90, 0.91, 0.95]}
    rows = pd.DataFrame(
        [
            {"name": name, "seed": seed, "macro_f1": f1, "low": f1 - 0.02, "high": f1 + 0.01,
             "accuracy": f1, "minutes": 2.0}
            for name, values in scores.items() for seed, f1 in enumerate(values)
        ]
        + [{"name": "c", "seed": 0}]
    )  # fmt: skip
    table = pictures.summary(rows).set_index("name")
    assert list(table.index) == ["a", "b"] and table["runs"].tolist() == [2, 3]
    for name, values in scores.items():
        assert table["macro_f1"][name] == pytest.approx(statistics.mean(values))
        assert table["sd"][name] == pytest.approx(statistics.stdev(values))
        assert table["low"][name] == pytest.approx(statistics.mean(values) - 0.02)
        assert table["gain"][name] == pytest.approx(statistics.mean(values) - 0.82)
    assert "| b | 3 | 0.9200 | 0.0265 | 0.9000 to 0.9300 | +0.1000 | 0.9200 | 2.0 |" in (
        pictures.markdown(table.reset_index())
    )


def test_one_run_has_no_deviation():
    row = {"name": "a", "seed": 0, "macro_f1": 0.5, "low": 0.4, "high": 0.6, "accuracy": 0.5}
    table = pictures.summary(pd.DataFrame([row | {"minutes": 1.0}]))
    assert "| a | 1 | 0.5000 | – |" in pictures.markdown(table)


def test_a_run_is_told_to_end_with_the_sweep(tmp_path, monkeypatch):
    output = tmp_path / "a.txt"
    begin = subprocess.Popen

    def popen(command, **how):
        program = (
            "import signal, sys, time; "
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved'))); "
            "print('ready', flush=True); time.sleep(60)"
        )
        return begin([sys.executable, "-c", program], **how)

    class StopOnceItRuns:
        @property
        def stop_requested(self):
            return "ready" in output.read_text()

    monkeypatch.setattr(sweep.subprocess, "Popen", popen)
    with pytest.raises(StoppedError):
        sweep._train(sweep.Job("a", 0, (), str(tmp_path / "a")), StopOnceItRuns())
    assert output.read_text() == "ready\nsaved\n"


def test_a_run_that_cannot_begin(recipes, tmp_path, capsys):
    """A process of its own, as it is in earnest."""
    flags = (f"--output_dir={tmp_path}/out", "--only=gentler")
    recipes.write_text(f"--data_dir={tmp_path}/nowhere\n{LIST}")
    assert call("sweep", recipes, *flags) == 1
    rows = pd.read_csv(tmp_path / "out" / "sweep.csv")
    assert "exit code 2" in rows["state"][0] and "nowhere: no such folder" in rows["state"][0]
    assert not (tmp_path / "out" / "sweep.png").exists()


def test_the_list_of_the_ablation_can_be_trained():
    path = "scripts/flagfiles/ablation.sweep"
    jobs = list(sweep.plan_jobs(SweepOptions(seeds="0,1"), sweep.read_recipes(path)))
    assert len(jobs) > 40 and len({job.run_dir for job in jobs}) == len(jobs)
    assert {cli.spec_of(job.flags).data.image_size for job in jobs} == {128}


def test_no_list_is_said(tmp_path):
    with pytest.raises(RequestError, match="no such file"):
        sweep.read_recipes(str(tmp_path / "none"))
