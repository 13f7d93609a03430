"""The most that devices can do, by their names."""

import re

from flowers_tpu.errors import RequestError
from flowers_tpu.generations import GENERATIONS, Generation

# Dense bfloat16 products with float32 sums (float16 on those without bfloat16), FLOP/s, as NVIDIA's
# data sheets have them; by a whole word of the device's name, the longer ones first.
_GPU_PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "V100": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "T4": 65e12,
}


def of_tpu(accelerator: str) -> float:
    """Returns the most FLOP/s of one device of a TPU, which any slice of its generation has.

    Args:
        accelerator: a generation (`v3`), or a slice of any size (`v3-128`, `v5litepod-4`).

    Raises:
        RequestError: the generation is unknown.
    """
    generation = _generation(accelerator)
    return generation.flops / generation.replicas


def of_gpu(name: str) -> float | None:
    """Returns the most FLOP/s of a GPU by its name; None where it is not known."""
    for words, flops in _GPU_PEAKS.items():
        if re.search(rf"\b{words}\b", name):
            return flops
    return None


def _generation(accelerator: str) -> Generation:
    name = re.split("[-:]", accelerator)[0]
    for generation in GENERATIONS:
        if name in (generation.name, generation.cloud_name):
            return generation
    raise RequestError(
        f"--accelerator={accelerator}: is unknown; there are: "
        f"{', '.join(generation.name for generation in GENERATIONS)}, each also with the size of a "
        "slice, as v3-8"
    )
