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
    precision: str = knob(
        "auto",
        "Precision of the layers' arithmetic; auto: bfloat16 on TPU, float32 elsewhere. "
        "Weights, softmax, loss and scores are always float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    deterministic: bool = knob(
        False, "Use only deterministic kernels; needed for bit-exactness on GPUs."
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.require_tpu and not self.tpu:
            yield "--require_tpu needs --tpu: 'local' on a TPU VM, a name, or grpc://HOST:PORT"
