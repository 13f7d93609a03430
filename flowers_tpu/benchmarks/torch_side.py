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
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system.errors import RequestError, RunError

BACKBONES = ("vgg16", "mobilenet_v2")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bfloat16")
# With which values of flags the training is the same; others are ignored.
FOLLOWS = {
    "dropout": (0.0,),
    "batch_norm": ("per_replica", "synchronized"),  # of one replica they are one
    "l2": (0.0,),
    "clip_norm": (0.0,),
    "label_smoothing": (0.0,),
    "class_weights": ("none",),
    "augment_on": ("host",),
}

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
        with contextlib.suppress(BrokenPipeError):  # what it died of is raised below
            print(f"{precision} {steps}", file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        for line in self._process.stdout or ():
            return line.strip()
        self._process.wait()
        self._messages.seek(0)
        last = (self._messages.read().strip().splitlines() or ["no message"])[-1]
        raise RunError(f"--against=torch: PyTorch failed: {last}")


@contextlib.contextmanager
def worker(python: str, recipe: Recipe, num_classes: int) -> Iterator[Worker]:
    """Starts the process, and ends it.

    Args:
        python: an interpreter that has PyTorch.
        recipe: found good by `check`.
        num_classes: number of logits.
    """
    flags = recipe.spec.flat()
    request = {name: flags[name] for name in _FLAGS}
    request |= {"num_classes": num_classes, "batch_size": recipe.resolved.photos_per_step}
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


def check(python: str, recipe: Recipe) -> None:
    """Checks that PyTorch can be measured beside this.

    Args:
        python: an interpreter that has PyTorch.
        recipe: of the run that is measured.

    Raises:
        RequestError: the interpreter has no PyTorch, or the flags want what it is not asked for.
    """
    for flag, value, known in (
        ("backbone", recipe.spec.model.backbone, BACKBONES),
        ("optimizer", recipe.spec.training.optimizer, OPTIMIZERS),
    ):
        if value not in known:
            raise RequestError(
                f"--against=torch: --{flag}={value} is not measured in PyTorch; there are: "
                f"{', '.join(known)}"
            )
    if recipe.facts.kind == "TPU":
        raise RequestError("--against=torch: would train beside the TPU, on the CPU; leave it out")
    if recipe.facts.replicas > 1:
        raise RequestError(
            f"--against=torch: trains on one device, but here are {recipe.facts.replicas} "
            "replicas; run on one (without --replicas; of several GPUs by CUDA_VISIBLE_DEVICES=0)"
        )
    version(python)


@functools.cache
def version(python: str) -> str:
    """Asks an interpreter for the version of its PyTorch.

    Raises:
        RequestError: it has none, or no torchvision.
    """
    if not shutil.which(python):
        raise RequestError(f"--torch_python={python}: no such program")
    asked = subprocess.run(
        [python, "-c", "import torch, torchvision; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise RequestError(
            f"--torch_python={python}: cannot import torch and torchvision ({reason}); make an "
            "environment with `pip install torch torchvision` and give its interpreter"
        )
    return asked.stdout.strip()


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
