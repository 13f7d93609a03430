"""Shows a data set, and what a recipe makes of it, in pictures and tables.

    python scripts/explore.py --data_dir=DATA --image_size=192 --output_dir=FOLDER
    python scripts/explore.py --flagfile=scripts/flagfiles/oxford102.flags --class="water lily"

Prints a summary and writes it as summary.json; beside it class_counts.csv, jpeg_sizes.csv and
duplicates.csv (photos that are byte for byte the same), and in plots/: labels.png (photos per
class), sample_{train,val,test}.png, jpeg_sizes.png, duplicates.png, and by the flags of a run, such
as a flagfile's, augmentation.png and learning_rate.png. With --class only photos of that class are
drawn. Of the flags of a run those for data, augmentation, batch and learning rate matter here.

Rates follow from the global batch: --replicas=8 shows those of eight replicas. Where the data of a
recipe are not at hand, an empty --data_dir draws its rates alone, for as many training photos as
the competition has (12,753):

    python scripts/explore.py --flagfile=scripts/flagfiles/notebook_vgg16.flags --data_dir=
"""

import dataclasses

from flowers_tpu import command_line
from flowers_tpu.config import knob


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of this script alone."""

    output_dir: str = knob(
        "",
        "Exploration",
        "Folder for pictures and tables; empty: runs/exploration-<data set>-<image size>px. What "
        "an earlier exploration of the same data wrote there is replaced; one that holds anything "
        "else is refused.",
    )
    class_: str = knob(
        "",
        "Exploration",
        "Draw photos of this class (its name or label), and nothing else, beside what is there; "
        "empty: the whole data set.",
    )
    show: bool = knob(
        False, "Exploration", "Also open the pictures in windows, where there is a display."
    )


if __name__ == "__main__":
    command_line.run("exploring.explore", __doc__, options=Options)
