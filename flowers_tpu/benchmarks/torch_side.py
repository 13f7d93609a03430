"""The same network in PyTorch, trained by another interpreter in a process of its own."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from flowers_tpu.benchmarks.rounds import Side
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError, RunError

NETWORKS = ("vgg16", "mobilenet_v2", "small_cnn", "tiny")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bfloat16")

_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_worker.py")
_FLAGS = (
    *("backbone", "alpha", "image_size", "optimizer", "learning_rate", "momentum", "weight_decay"),
)


class Worker:
    """The process; it waits between two requests."""

    def __init__(self, process: subprocess.Popen, messages):
        self._process = process
        self._messages = messages
        self.version = self._line()

    def seconds(self, precision: str, steps: int) -> float:
        """Does so many training steps; returns the seconds they took.

        Raises:
            RunError: the process fails.
        """
        with contextlib.suppress(BrokenPipeError):  # what it died of is told below
            self._process.stdin.write(f"{precision} {steps}\n")
            self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        if line := self._process.stdout.readline():
            return line.strip()
        self._process.wait()
        self._messages.seek(0)
        last = (self._messages.read().strip().splitlines() or ["no message"])[-1]
        raise RunError(f"--against=torch: PyTorch failed: {last}")


@contextlib.contextmanager
def worker(python: str, config: Config, num_classes: int) -> Iterator[Worker]:
    """Starts the process, and ends it.

    Args:
        python: an interpreter that has PyTorch.
        config: resolved.
        num_classes: number of logits.

    Raises:
        RequestError: the interpreter has no PyTorch, or the flags want what is not written for it.
    """
    check(python, config)
    request = {name: getattr(config, name) for name in _FLAGS}
    request |= {"num_classes": num_classes, "batch_size": config.batch_size_per_replica}
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(
            [python, _WORKER, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        ) as process,
    ):
        try:
            yield Worker(process, messages)
        finally:
            process.kill()


def check(python: str, config: Config) -> None:
    """Raises RequestError where PyTorch cannot be measured so."""
    for flag, value, known in (
        ("backbone", config.backbone, NETWORKS),
        ("optimizer", config.optimizer, OPTIMIZERS),
    ):
        if value not in known:
            raise RequestError(
                f"--against=torch: --{flag}={value} is not written in PyTorch here; there are: "
                f"{', '.join(known)}"
            )
    if config.global_batch_size != config.batch_size_per_replica:
        raise RequestError("--against=torch: compares one replica; leave --replicas out")
    if not shutil.which(python):
        raise RequestError(f"--torch_python={python}: no such program")
    asked = subprocess.run(
        [python, "-c", "import torch"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise RequestError(
            f"--torch_python={python}: cannot import torch ({reason}); make an environment with "
            "`pip install torch` and give its interpreter"
        )


def sides(worker: Worker, photos_per_step: int) -> list[Side]:
    """A side for each precision."""
    return [
        Side(
            f"torch {precision}",
            photos_per_step,
            lambda precision=precision: functools.partial(worker.seconds, precision),
        )
        for precision in PRECISIONS
    ]
