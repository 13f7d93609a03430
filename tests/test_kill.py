"""A real run that is killed, again and again, ends as one that was left alone.

The long form, every phase three times:  python -m pytest -m slow tests/test_kill.py
"""

import random
import subprocess
import sys
import time

import pandas as pd
import pytest

from flowers_tpu.runs import goodput
from tests.calling import call
from tests.photos import write_data_set
from tests.test_resume import assert_same_run

FLAGS = [
    *("--replicas=2", "--image_size=32", "--backbone=small_cnn", "--weights=none"),
    *("--batch_size_per_replica=4", "--warmup_epochs=1", "--epochs=3", "--learning_rate=1e-2"),
    *("--dropout=0.2", "--steps_per_loop=1", "--checkpoint_every_steps=4"),
    "--noreport",
]


def rows(run_dir):
    path = run_dir / "history.csv"
    return len(pd.read_csv(path)) if path.exists() else 0


def checkpoints(run_dir):
    return len(list((run_dir / "checkpoints" / "latest").glob("*.index")))


def being_saved(run_dir):
    """Files that exist only while a checkpoint is written."""
    return any("temp" in path.name for path in (run_dir / "checkpoints").rglob("*"))


# In the order in which they come; the moment of the kill is up to DELAY seconds later.
PHASES = {
    "begin": lambda run: (run / "config.json").exists(),
    "warm-up": lambda run: checkpoints(run) > 0,
    "save": being_saved,
    "change of stage": lambda run: rows(run) == 1,
    "fine-tuning": lambda run: rows(run) == 2,
    "save in fine-tuning": being_saved,
    "last validation": lambda run: rows(run) == 3,
    "end of training": lambda run: rows(run) == 4,
    "prediction": lambda run: (run / "predictions_test.csv").exists(),
    "scoring": lambda run: (run / "predictions_train.csv").exists(),
}
DELAY = 0.1


def flags_of(data, run_dir):
    return [*FLAGS, f"--data_dir={data}", f"--run_dir={run_dir}"]


def start(data, run_dir):
    return subprocess.Popen(
        [sys.executable, "scripts/train.py", *flags_of(data, run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(data, run_dir):
    """Goes on to the end, in this process."""
    assert call("train", *flags_of(data, run_dir)) == 0


def kill_in(phase, data, run_dir, delay):
    """Kills a run in a phase; returns whether it came to that."""
    process = start(data, run_dir)
    while process.poll() is None:
        if PHASES[phase](run_dir):
            time.sleep(delay)
            if process.poll() is None:
                process.kill()
            break
    out, _ = process.communicate(timeout=300)
    assert process.returncode in (0, -9), out
    return process.returncode == -9


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "d", train=90, val=40, test=30)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    finish(data, run_dir)
    return run_dir


def kill_through(phases, data, run_dir, seed):
    generator = random.Random(seed)
    hits = [
        phase
        for phase in phases
        if kill_in(phase, data, run_dir, 0 if "save" in phase else generator.uniform(0, DELAY))
    ]
    finish(data, run_dir)
    return hits


def test_killed_twice(whole, data, tmp_path):
    hits = kill_through(["save", "fine-tuning"], data, tmp_path / "run", seed=0)
    assert hits == ["save", "fine-tuning"]
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_killed_in_every_phase(whole, data, tmp_path):
    hits = []
    for seed in range(3):
        run_dir = tmp_path / str(seed)
        hits += kill_through(PHASES, data, run_dir, seed)
        assert_same_run(whole, run_dir)
    counts = {phase: hits.count(phase) for phase in PHASES}
    print(f"{len(hits)} kills: {counts}")
    assert len(hits) >= 20 and min(counts.values()) >= 2


@pytest.mark.slow
def test_killed_by_the_weather(tmp_path):
    """Killed at random, every 30 s on the mean, until the run ends; 20 minutes at most."""
    flags = [
        *("--data_dir=example", "--image_size=64", "--backbone=small_cnn", "--weights=none"),
        *("--batch_size_per_replica=32", "--warmup_epochs=0", "--epochs=16", "--noreport"),
        *("--learning_rate=1e-3", "--early_stopping_patience=0", "--checkpoint_every_steps=10"),
    ]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(
        [sys.executable, "scripts/train.py", *flags, f"--run_dir={undisturbed}"], check=True
    )
    generator, kills, begin, code = random.Random(3), 0, time.monotonic(), None
    while code != 0:
        assert time.monotonic() - begin < 1200, "the weather was too bad"
        process = subprocess.Popen(
            [sys.executable, "scripts/train.py", *flags, f"--run_dir={killed}"]
        )
        try:
            code = process.wait(generator.expovariate(1 / 30))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            kills += 1
    assert_same_run(undisturbed, killed)
    shares = {path.name: goodput.summary(pd.read_csv(path / goodput.FILE))["goodput"]
              for path in (undisturbed, killed)}  # fmt: skip
    print(f"{kills} kills; goodput {shares}")
    assert kills > 2 and 0 < shares["killed"] < shares["undisturbed"] < 1
