"""What is looked at, and where pictures go."""

import dataclasses
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class ExploreOptions(Options):
    """What of a data set to draw."""

    topic: ClassVar[str] = "Exploration"

    output_dir: str = knob(
        "",
        "Folder for pictures and tables; empty: runs/exploration-<data set>-<image size>px. What "
        "an earlier exploration of the same data wrote there is replaced; one that holds anything "
        "else is refused.",
    )
    class_: str = knob(
        "",
        "Draw photos of this class (its name or label), and nothing else, beside what is there; "
        "empty: the whole data set.",
    )
    show: bool = knob(False, "Also open the pictures in windows, if there is a display.")


@dataclasses.dataclass(frozen=True)
class CompareOptions(Options):
    """Where the curves of several runs go."""

    topic: ClassVar[str] = "Output"

    output: str = knob("comparison.png", "PNG file for the curves.")
    overwrite: bool = knob(False, "Replace --output if it exists.")
