"""Makes a data set of one's own photos, for training: TFRecords in the competition's layout.

    python scripts/make_tfrecords.py --photos=FOLDER --output_dir=DATA
    python scripts/make_tfrecords.py --csv=photos.csv --output_dir=DATA --sizes=224 --crop=pad

FOLDER has a folder per class, and where wanted test/ with photos of unknown class; or train/,
val/ and test/ with a folder per class in each. A CSV has the columns path,label and, where wanted,
split; label is the name of the class, and a photo without one is a test photo. Photos that are not
given a split are divided class by class, by fractions and a seed. Where no photo is given to test,
labeled ones are taken; photos.csv has their labels.

DATA gets tfrecords-jpeg-SxS/ with train/, val/, test/, classes.txt and sample_submission.csv for
every size; photos.csv (path, label, split, id and size of every photo; a CSV that --csv takes),
class_counts.csv, summary.csv (photos, shards, megabytes, and photos that had to be enlarged) and
unreadable.csv. It appears once it is complete. Any format that Pillow reads will do; EXIF
orientation and colour profiles are honoured, metadata left out. Photos that cannot be read are left
out, listed and warned of.
"""

import dataclasses

from flowers_tpu import command_line
from flowers_tpu.config import knob


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of this script."""

    photos: str = knob("", "Photos", "Folder of the photos; with --csv: what its paths begin at.")
    csv: str = knob(
        "",
        "Photos",
        "CSV with the columns path,label[,split]; paths are within --photos, else within the "
        "CSV's own folder.",
    )
    classes: str = knob(
        "",
        "Photos",
        "File of class names, one a line, in the order of their labels; empty: all there are, "
        "sorted.",
    )
    val_fraction: float = knob(
        0.15, "Splits", "Part of each class for validation; 0 where photos are given to val."
    )
    test_fraction: float = knob(
        0.15, "Splits", "Part of each class for testing; 0 where photos are given to test."
    )
    seed: int = knob(0, "Splits", "Seed of the division and of the order in the files.")
    output_dir: str = knob("", "Output", "Folder to make: what --data_dir of a training takes.")
    overwrite: bool = knob(
        False, "Output", "Replace an earlier conversion in --output_dir; never anything else."
    )
    sizes: str = knob("192,224,331,512", "Output", "Sides of the squares to make, pixels.")
    crop: str = knob(
        "center",
        "Output",
        "How a photo becomes a square: center: the largest square in its middle; pad: all of it, "
        "with grey (128) around it.",
        choices=("center", "pad"),
    )
    quality: int = knob(95, "Output", "Quality of the JPEGs, 1 to 100.")
    shards: int = knob(16, "Output", "Most files per split.")
    threads: int = knob(0, "Output", "Photos converted at a time; 0: one per core.")
    strict: bool = knob(
        False, "Output", "Exit with code 2, and write nothing, if a photo cannot be read."
    )


if __name__ == "__main__":
    command_line.run("conversion.convert.convert", __doc__, options=Options, takes_config=False)
