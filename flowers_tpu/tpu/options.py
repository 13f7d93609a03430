"""What to compile the steps of a run for."""

import dataclasses
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class TpuCheckOptions(Options):
    """Which TPUs, for how long, and where the report goes."""

    topic: ClassVar[str] = "TPU check"

    topology: str = knob(
        "v3:2x2",
        "What to compile for: names like v3:2x2 (chips), v3-8 or v5litepod-8 (Google Cloud's) or "
        "v3, separated by commas; an unknown name prints the known ones.",
    )
    find_batch: bool = knob(False, "Also search the largest batch that fits, and print its flag.")
    output_dir: str = knob(
        "",
        "Folder for the report, tpu_check.json, which is written after each slice; empty: "
        "runs/tpu-check-<name of --run_dir>.",
    )
    compile_minutes: float = knob(
        30.0, "Most time to give to one compilation.", unit="minutes", above=0
    )
    host_images_per_second: float = knob(
        0.0,
        "What the input of one of the TPU's hosts delivers; 0: measured on this machine if the "
        "data are there.",
        unit="photos/s",
        least=0,
    )
