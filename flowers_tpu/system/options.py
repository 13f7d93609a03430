"""What to run on, as a person may ask for it."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
    """What to run on."""

    topic: ClassVar[str] = "Devices"

    tpu: str = knob(
        "",
        "TPU to run on: 'local' (on a TPU VM), a name, or grpc://HOST:PORT; empty: none. Where "
        "there is none, a warning says what runs instead.",
        free=True,
    )
    require_tpu: bool = knob(
        False, "Fail, instead of warning, where --tpu finds no TPU.", free=True
    )
    replicas: int = knob(
        0,
        "Replicas to split the CPU into (tests, experiments); 0: one replica per device found.",
        free=True,
        least=0,
    )
    workers: str = knob(
        "",
        "HOST:PORT of every process that takes part, with commas between, the same for all; empty: "
        "those of TF_CONFIG or of Slurm's step, else this one alone.",
        free=True,
    )
    worker_index: int = knob(
        0, "Which of --workers this process is; 0 is the chief, which writes.", free=True, least=0
    )
    workers_seconds: float = knob(
        300.0, "How long to wait for all workers to come.", unit="seconds", free=True, above=0
    )
    precision: str = knob(
        "auto",
        "Precision of the layers' arithmetic; auto: bfloat16 on TPUs and on GPUs of compute "
        "capability 8.0 and later, float16 on those from 6.0, else float32. With float16 the loss "
        "is scaled, and a step whose gradients are then too large is left out. Weights, softmax, "
        "loss and scores are always float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    jit: str = knob(
        "auto",
        "Whether XLA compiles each replica's forward and backward pass; auto: on GPUs, unless "
        "--batch_norm=synchronized. A TPU's steps are always compiled.",
        choices=("auto", "on", "off"),
        free=True,
    )
    memory_growth: bool = knob(
        False,
        "Take a GPU's memory as it is needed, and not all at once: for GPUs that are shared.",
        free=True,
    )
    deterministic: bool = knob(
        False, "Use only deterministic kernels; needed for bit-exactness on GPUs."
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.workers and (self.tpu or self.replicas):
            other = "tpu" if self.tpu else "replicas"
            yield (
                f"--workers and --{other}: workers have GPUs, or one replica on the CPU each; "
                "leave one of the two flags out"
            )
        if self.worker_index and not self.workers:
            yield "--worker_index goes with --workers, which names all of them"
        if self.require_tpu and not self.tpu:
            yield "--require_tpu needs --tpu: 'local' on a TPU VM, a name, or grpc://HOST:PORT"
