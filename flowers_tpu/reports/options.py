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


@dataclasses.dataclass(frozen=True)
class SweepOptions(Options):
    """Which recipes are trained, and where the runs go."""

    topic: ClassVar[str] = "Sweep"

    output_dir: str = knob("runs/sweep", "Folder of the runs, the tables and the picture.")
    seeds: str = knob("0", "Seeds of the runs of each recipe, like 0,1,2.")
    only: str = knob("", "Names of recipes, like EMA,MixUp: the others wait; empty: all.")
