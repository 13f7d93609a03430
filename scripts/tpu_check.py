"""Compiles the real steps of a run with the real TPU compiler, on a machine without a TPU.

    python scripts/tpu_check.py --flagfile=scripts/flagfiles/notebook_vgg16.flags --topology=v3:2x2

Tells of both stages' training steps, evaluation and prediction whether they compile, what memory
they need, and how fast they can be at most; neither photos nor weights are needed. The compiler is
an extra: pip install -e '.[tpu-check]'. Exit code 0: all run; 1: a step does not.
"""

import dataclasses

from flowers_tpu import command_line
from flowers_tpu.config import knob


@dataclasses.dataclass(frozen=True)
class Options:
    """The script's own flags."""

    topology: str = knob(
        "v3:2x2",
        "TPU check",
        "What to compile for: names like v3:2x2 (chips), v3-8 or v5litepod-8 (Google Cloud's) or "
        "v3, separated by commas; an unknown name prints the known ones.",
    )
    find_batch: bool = knob(
        False, "TPU check", "Also search the largest batch that fits, and print its flag."
    )
    output_dir: str = knob(
        "tpu_check",
        "TPU check",
        "Folder for the report as JSON, named like the run; written after each slice.",
    )
    compile_minutes: float = knob(
        30.0, "TPU check", "Most time to give to one compilation, minutes."
    )
    host_images_per_second: float = knob(
        0.0,
        "TPU check",
        "Photos/s that the input of one of the TPU's hosts delivers; 0: measured on this machine "
        "where the data are there.",
    )


if __name__ == "__main__":
    command_line.run("tpu.check.check", __doc__, options=Options)
