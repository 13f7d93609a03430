"""What is known of the devices: one record, made in one place, that everything asks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the devices; whatever depends on them asks here.

    Attributes:
        kind: `TPU`, `GPU` or `CPU`.
        replicas: copies of the model that share each global batch.
        hosts: machines that read photos.
        workers: processes that each run this program, for its own replicas.
        compute_capability: of the oldest GPU; None without one.
        memory: bytes of one device, of the smallest; None if TensorFlow does not say.
    """

    kind: str
    replicas: int = 1
    hosts: int = 1
    compute_capability: tuple[int, int] | None = None
    memory: int | None = None
    workers: int = 1

    @property
    def compiles_passes(self) -> bool:
        """What `--jit=auto` stands for: on a CPU XLA's convolutions are many times slower.

        A TPU has no other way: its steps are compiled as a whole.
        """
        return self.kind == "GPU"

    @property
    def arithmetic(self) -> str:
        """The precision of the layers that `--precision=auto` stands for."""
        return self._arithmetic[0]

    @property
    def why_arithmetic(self) -> str:
        """Why it is that, for the plan; '' if there is nothing to say."""
        return self._arithmetic[1]

    @property
    def augment_on(self) -> str:
        """What `--augment_on=auto` stands for: the side that has time for it."""
        return "host" if self.kind == "CPU" else "device"

    @property
    def fetches_ahead(self) -> bool:
        """Whether batches are copied to the devices before their step.

        CPU replicas find theirs where the dataset's own prefetching has put it. What TensorFlow
        fetches beyond that is cancelled at a split's end, and sometimes it warns of that.
        """
        return self.kind != "CPU"

    @property
    def _arithmetic(self) -> tuple[str, str]:
        if self.kind == "TPU":
            return "bfloat16", "which a TPU multiplies"
        if self.compute_capability is None:
            return "float32", ""
        capability = "compute capability {}.{}".format(*self.compute_capability)
        if self.compute_capability >= (8, 0):
            return "bfloat16", capability
        if self.compute_capability >= (6, 0):
            return "float16", f"{capability}; bfloat16 comes with 8.0"
        return "float32", f"{capability}; float16 comes with 6.0"

    def __str__(self) -> str:
        """`2 CPU replicas`, for messages."""
        of = f" of {self.workers} workers" if self.workers > 1 else ""
        return f"{self.replicas} {self.kind} replica{'s' if self.replicas > 1 else ''}{of}"


class Listed(NamedTuple):
    """A device as TensorFlow lists it.

    Attributes:
        kind: `CPU`, `GPU` or `TPU`.
        compute_capability: of a GPU.
        memory: bytes; None if unknown.
    """

    kind: str
    compute_capability: tuple[int, int] | None = None
    memory: int | None = None


def facts_of(
    listed: Sequence[Listed], *, tpu_replicas: int = 0, cpu_replicas: int = 0, hosts: int = 1
) -> Facts:
    """Makes the record of the devices from what TensorFlow lists.

    Args:
        listed: all devices of this process.
        tpu_replicas: replicas of the TPU that was found; 0: none.
        cpu_replicas: parts that the CPU is split into; 0: it is not asked to be.
        hosts: machines that read photos.
    """
    if tpu_replicas:
        return Facts("TPU", tpu_replicas, hosts)
    gpus = [device for device in listed if device.kind == "GPU"]
    if cpu_replicas or not gpus:
        return Facts("CPU", cpu_replicas or 1, hosts)
    capabilities = [gpu.compute_capability for gpu in gpus if gpu.compute_capability]
    memories = [gpu.memory for gpu in gpus if gpu.memory]
    return Facts(
        "GPU",
        len(gpus),
        hosts,
        compute_capability=min(capabilities, default=None),
        memory=min(memories, default=None),
    )
