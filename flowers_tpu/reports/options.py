"""What is looked at, and where pictures go."""

import dataclasses
from collections.abc import Iterator
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
class CheckOptions(Options):
    """What else of a data set to look for."""

    topic: ClassVar[str] = "Check"

    near_copies: bool = knob(
        False,
        "Also list photos that show the same: re-encoded, resized, mirrored or cropped. They are "
        "no error; --folds and --extra_data_dirs leave out of training what they would give away.",
    )
    output: str = knob(
        "", "PNG file to make of --near_copies: the photos side by side; empty: none."
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.output and not (self.near_copies and self.output.endswith(".png")):
            yield (
                f"--output={self.output}: expected the name of a PNG file, like copies.png, "
                "together with --near_copies"
            )


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
