"""Which photos to convert, how to divide them, and what to make of them."""

import dataclasses
import os
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class ConvertOptions(Options):
    """A conversion, completely."""

    topic: ClassVar[str] = "Conversion"

    photos: str = knob("", "Folder of the photos; with --csv: what its paths begin at.")
    csv: str = knob(
        "",
        "CSV with the columns path,label[,split][,id]; paths are within --photos, else within the "
        "CSV's own folder.",
    )
    from_tfrecords: str = knob(
        "",
        "Folder of TFRecords as others write them, in place of --photos: under any names, with "
        "other features, compressed.",
    )
    oxford102: str = knob(
        "",
        "Folder with jpg/, imagelabels.mat and setid.mat, as the Oxford 102 flowers are published, "
        "in place of --photos; the split is the official one.",
    )
    image_feature: str = knob("", "Their feature with the photo; empty: by its usual names.")
    label_feature: str = knob(
        "",
        "Their feature with the class: a number, its name, or one 1 among zeros; empty: by its "
        "usual names.",
    )
    id_feature: str = knob(
        "", "Their feature with an id; empty: by its usual names, else shard and number."
    )
    classes: str = knob(
        "",
        "File of class names, one a line, in the order of their labels; empty: all there are, "
        "sorted.",
    )
    val_fraction: float = knob(
        0.15, "Part of each class for validation; 0 if photos are given to val.", least=0, below=1
    )
    test_fraction: float = knob(
        0.15, "Part of each class for testing; 0 if photos are given to test.", least=0, below=1
    )
    test_labels: bool = knob(
        False, "Also write the labels of test photos, for scripts/evaluate.py --split=test."
    )
    seed: int = knob(0, "Seed of the division and of the order in the files.", least=0)
    output_dir: str = knob("", "Folder to make: what --data_dir of a training takes.")
    overwrite: bool = knob(
        False, "Replace an earlier conversion in --output_dir; never anything else."
    )
    sizes: str = knob("192,224,331,512", "Sides of the squares to make.", unit="pixels")
    crop: str = knob(
        "center",
        "How a photo becomes a square: center: the largest square in its middle; pad: all of it, "
        "with grey (128) around it.",
        choices=("center", "pad"),
    )
    quality: int = knob(95, "Quality of the JPEGs.", least=1, most=100)
    shards: int = knob(16, "Most files per split.", least=1)
    threads: int = knob(0, "Photos converted at a time; 0: one per core.", least=0)
    strict: bool = knob(False, "Exit with code 2, and write nothing, if a photo cannot be read.")

    def contradictions(self) -> Iterator[str]:
        """Yields what is wrong with the flags, as messages."""
        others = [n for n in ("from_tfrecords", "oxford102") if getattr(self, n)]
        if not self.photos and not self.csv and not others:
            yield (
                "--photos=FOLDER or --csv=FILE is needed: the photos to convert; or "
                "--from_tfrecords=FOLDER"
            )
        if others and (self.photos or self.csv or len(others) > 1):
            yield f"--{others[0]}: takes the place of --photos and --csv; give one of them"
        for name in ("image_feature", "label_feature", "id_feature"):
            if getattr(self, name) and not self.from_tfrecords:
                yield f"--{name}: says what is in records; give --from_tfrecords too"
        if not self.output_dir:
            yield "--output_dir=FOLDER is needed: where the data set goes"
        for name in ("photos", "csv", "from_tfrecords", "oxford102", "output_dir"):
            if "://" in (value := getattr(self, name)):
                yield f"--{name}={value}: must be local; copy the data set to a bucket afterwards"
        for name in ("photos", "from_tfrecords"):
            given = getattr(self, name)
            output, photos = (os.path.realpath(path) for path in (self.output_dir, given))
            if given and not self.csv and os.path.commonpath([output, photos]) == photos:
                yield f"--output_dir={self.output_dir}: lies within --{name}; choose another folder"
        sizes = self.sizes.split(",")
        if not all(size.strip().isdecimal() and 1 <= int(size) <= 16384 for size in sizes):
            yield f"--sizes={self.sizes}: expected sides in pixels, such as 192,224,331,512"
        if self.val_fraction + self.test_fraction >= 1:
            yield (
                f"--val_fraction={self.val_fraction} and --test_fraction={self.test_fraction} "
                "leave nothing to train on"
            )
