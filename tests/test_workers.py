"""Several workers train as one process does: the same numbers, one voice, one end."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

from tests.calling import call
from tests.photos import write_data_set

FLAGS = [
    *("--image_size=32", "--backbone=small_cnn", "--batch_norm=frozen", "--weights=none"),
    *("--dropout=0.2", "--global_batch_size=8", "--warmup_epochs=1", "--learning_rate=1e-3"),
    *("--lr_schedule=constant", "--augment_on=device", "--ema_decay=0.9", "--on_nan=skip"),
    *("--noreport", "--notensorboard", "--early_stopping_patience=0", "--steps_per_loop=2"),
]  # fmt: skip
RESULTS = ("history.csv", "submission.csv", "predictions_val.csv", "predictions_train.csv",
           "predictions_test.csv", "scores.json", "confusion_val.csv", "data.json")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Numbers that no number of workers divides; one shard, which is fewer than there are."""
    folder = tmp_path_factory.mktemp("workers")
    return write_data_set(folder / "d", train=26, val=9, test=5)


class Job:
    """The launcher with workers of a run."""

    def __init__(self, *flags, workers=2, restarts=0):
        self.process = subprocess.Popen(
            [sys.executable, "scripts/launch.py", f"--workers={workers}",
             f"--max_restarts={restarts}", "--kill_after_seconds=60",
             "--", "scripts/train.py", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.lines = []

    def until(self, text):
        """Reads on until a line has a text."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}: {self.lines}")

    def end(self):
        """Reads to the end; returns the exit code."""
        self.lines += [line.rstrip() for line in self.process.stdout]
        return self.process.wait()

    def worker(self, index):
        """The process number of a worker."""
        pattern = f"worker_index={index}".encode()
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        for pid in map(int, children.stdout.split()):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if pattern in file.read():
                    return pid
        raise AssertionError(f"no worker {index}")

    @property
    def text(self):
        return "\n".join(self.lines)


@pytest.fixture
def job():
    """Starts jobs; none outlives the test."""
    jobs = []

    def start(*flags, **how):
        jobs.append(Job(*flags, **how))
        return jobs[-1]

    yield start
    for one in jobs:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            subprocess.run(["pkill", "-KILL", "-f", "worker_index"], check=False)


def assert_same_results(folder, other, names=RESULTS):
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def on_two_replicas(data, tmp_path_factory):
    """The same run by one process, on as many replicas; of two epochs of fine-tuning."""
    folder = tmp_path_factory.mktemp("one") / "run"
    flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={folder}", "--epochs=2", "--replicas=2"]
    assert call("train", *flags) == 0
    return folder


def test_two_workers_come_to_what_one_process_does_though_one_is_killed(
    job, data, on_two_replicas, tmp_path
):
    """Byte for byte: started again by the launcher after a worker was killed within an epoch.

    The other one says who is gone; the chief alone speaks, and writes.
    """
    run = tmp_path / "run"
    flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={run}", "--epochs=2"]
    started = job(*flags, "--checkpoint_every_steps=1", restarts=2)
    started.until("epoch   1/3")
    begin = time.monotonic()
    os.kill(started.worker(1), signal.SIGKILL)
    started.until("starting all again")
    assert time.monotonic() - begin < 30
    assert re.search(r"\[0\] train: worker 1 \(127.0.0.1:\d+\) is gone, and without", started.text)
    assert started.end() == 0, started.text
    assert_same_results(run, on_two_replicas)
    assert "2 CPU replicas of 2 workers, global batch 8" in started.text
    spoken = [line for line in started.lines if line.startswith("[1] ") and "epoch" in line]
    assert spoken == []
    assert sorted(os.listdir(run / "checkpoints")) == ["best", "latest"]
    assert "workers" not in os.listdir(run)
    again = job(*flags)
    assert again.end() == 0 and "is finished; --overwrite begins anew" in again.text


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_to_one_saves_and_ends_all_and_any_number_goes_on(
    job, data, on_two_replicas, tmp_path, index
):
    """The same command continues: here by one process, with as many replicas."""
    run = tmp_path / "run"
    flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={run}", "--epochs=2"]
    started = job(*flags, restarts=2)
    started.until("epoch   1/3")
    os.kill(started.worker(index), signal.SIGTERM)
    assert started.end() == 143
    assert started.text.count("stopped; the same command continues") == 2
    assert "starting all again" not in started.text
    assert len(pd.read_csv(run / "history.csv")) < 3
    assert call("train", *flags, "--replicas=2") == 0
    assert_same_results(run, on_two_replicas)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "more"),
    [
        (3, []),
        (4, []),
        (2, ["--jit=on"]),
        (2, ["--precision=bfloat16", "--accumulate_steps=2", "--cache=pixels", "--mixup=0.2"]),
        (2, ["--warmup_on=features", "--batch_norm=synchronized", "--cache=records"]),
        (2, ["--batch_norm=per_replica", "--backbone_rate=0.5", "--early_stopping_patience=1"]),
    ],
)
def test_any_number_of_workers_and_other_flags(job, data, tmp_path, count, more):
    """Two: byte for byte what one process with as many replicas comes to; more: within rounding.

    A ring adds three numbers in another order than one process does.
    """
    flags = [*FLAGS, f"--data_dir={data}", "--global_batch_size=24", "--epochs=3", *more]
    started = job(*flags, f"--run_dir={tmp_path}/several", workers=count)
    assert call("train", *flags, f"--run_dir={tmp_path}/one", f"--replicas={count}") == 0
    assert started.end() == 0, started.text
    if count == 2:
        assert_same_results(tmp_path / "several", tmp_path / "one")
        return
    several, one = (pd.read_csv(tmp_path / name / "history.csv") for name in ("several", "one"))
    assert several["step"].iloc[-1] <= 10
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(several[name], one[name], rtol=1e-5)


@pytest.mark.slow
def test_a_step_of_slurm_and_a_tf_config(data, on_two_replicas, tmp_path):
    """Their variables set, as `srun` and others do; the host is this one."""
    for name in ("slurm", "tf_config"):
        port, run = 30_000 + os.getpid() % 2000, tmp_path / name
        flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={run}", "--epochs=2"]
        cluster = {"worker": [f"localhost:{port}", f"localhost:{port + 1}"]}
        processes = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            variables = {
                "slurm": {
                    **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"},
                    **{"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_ID": str(os.getpid())},
                    "SLURM_PROCID": str(index),
                },
                "tf_config": {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})},
            }[name]
            command = [sys.executable, "scripts/train.py", *flags]
            processes.append(subprocess.Popen(command, env=os.environ | variables))
        assert [process.wait(300) for process in processes] == [0, 0]
        assert_same_results(run, on_two_replicas)


@pytest.mark.slow
def test_twenty_kills(job, data, tmp_path, monkeypatch):
    """Of random workers at random moments, under the launcher; 25 minutes at most."""
    flags = [*FLAGS, f"--data_dir={data}", "--epochs=60"]
    assert job(*flags, f"--run_dir={tmp_path}/undisturbed").end() == 0
    flags += ["--checkpoint_every_steps=2", f"--run_dir={tmp_path}/killed"]
    started = job(*flags, restarts=40)
    reader = threading.Thread(target=started.end)
    reader.start()
    generator, kills, begin = random.Random(5), 0, time.monotonic()
    while started.process.poll() is None and kills < 20:
        assert time.monotonic() - begin < 1500
        time.sleep(generator.uniform(1, 25))
        with contextlib.suppress(AssertionError, subprocess.CalledProcessError, ProcessLookupError):
            os.kill(started.worker(generator.randrange(2)), signal.SIGKILL)
            kills += 1
    reader.join()
    assert started.process.returncode == 0, started.text
    print(f"{kills} kills")
    assert_same_results(tmp_path / "killed", tmp_path / "undisturbed")


def test_one_that_is_stopped_is_noticed(job, data, tmp_path):
    """It holds its connections, but its heart does not beat."""
    run = tmp_path / "run"
    started = job(*FLAGS, f"--data_dir={data}", f"--run_dir={run}", "--epochs=9000")
    started.until("epoch   1/")
    worker, begin = started.worker(1), time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    started.until("train: worker 1")
    assert time.monotonic() - begin < 30
    assert "is gone" in started.lines[-1]
    os.kill(worker, signal.SIGKILL)
    assert started.end() == 1


def test_workers_that_are_not_alike_end_before_anything_is_written(data, tmp_path):
    """Other flags, other data, another folder: said on both, exit code 2."""
    (other := tmp_path / "other").mkdir()
    write_data_set(other, train=27, val=9, test=5)
    ports = iter(range(29_000 + os.getpid() % 900, 32_000))
    cases = {
        "--seed 4, the chief 3": (["--seed=3"], ["--seed=4"]),
        "train '27 photos": ([], [f"--data_dir={other}"]),
        "--run_dir": ([], [f"--run_dir={tmp_path / 'elsewhere'}"]),
    }
    processes = {}
    for number, (message, each) in enumerate(cases.items()):
        addresses = ",".join(f"127.0.0.1:{next(ports)}" for _ in each)
        flags = [*FLAGS, f"--data_dir={data}", f"--run_dir={tmp_path / str(number)}"]
        processes[message] = [
            subprocess.Popen(
                [sys.executable, "scripts/train.py", *flags, f"--workers={addresses}",
                 f"--worker_index={index}", *own],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for index, own in enumerate(each)
        ]  # fmt: skip
    for message, pair in processes.items():
        for process in pair:
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 2, out
            assert "the workers are not alike: worker 1 (127.0.0.1:" in out
            assert message in out
    assert not (tmp_path / "0" / "config.json").exists()


def test_other_commands_run_on_one(data, tmp_path, capsys):
    assert call("evaluate", "--workers=a:1,b:2", f"--run_dir={tmp_path}") == 2
    capsys.readouterr()
    assert call("explore", "--workers=a:1,b:2", f"--data_dir={data}", "--image_size=32") in (0, 2)
