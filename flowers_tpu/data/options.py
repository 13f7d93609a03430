"""Which photos, and how they come to a model."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob


@dataclasses.dataclass(frozen=True)
class DataOptions(Options):
    """Which photos, and how they come to a model."""

    topic: ClassVar[str] = "Data"

    data_dir: str = knob(
        "example",
        "Folder or gs:// path with train/, val/ and test/, or with tfrecords-jpeg-SxS/ folders; "
        "'example': drawn flowers, made on first use.",
    )
    image_size: int = knob(192, "Side of the square the model sees.", unit="pixels", least=1)
    eval_image_size: int = knob(
        0,
        "Side at which photos are evaluated and predicted; 0: as --image_size. What random crops "
        "enlarge in training looks as large there at some 1.2 times the size.",
        unit="pixels",
        least=0,
    )
    classes: str = knob(
        "",
        "File of class names, one a line; empty: the data set's classes.txt, else the 104 flowers.",
    )
    folds: int = knob(
        0,
        "Cut the photos of training and validation together into so many parts, with the same "
        "share of each class, of which --fold validates and the others train; 0: as they lie.",
        unit="folds",
        least=0,
    )
    fold: int = knob(0, "Which of --folds validates, from 0.", least=0)
    fold_seed: int = knob(
        0, "Seed by which --folds are cut; the same for all that belong together."
    )
    train_splits: str = knob(
        "train",
        "train; or train,val: train with the photos of both, for all epochs, and nothing measures "
        "what comes of it.",
        choices=("train", "train,val"),
    )
    extra_data_dirs: str = knob(
        "",
        "Folders of further labeled photos to train with, separated by commas, like --data_dir; "
        "classes are known by their names, and others are left out. Empty: none.",
    )
    allow_near_copies: bool = knob(
        False,
        "With --folds or --extra_data_dirs: keep training photos that are near-copies of "
        "validation or test photos, which are looked for and left out otherwise.",
    )
    batch_size_per_replica: int = knob(
        16,
        "Photos per step and replica; the global batch is this times the replicas.",
        unit="photos",
        least=1,
    )
    global_batch_size: int = knob(
        0,
        "Photos per step over all replicas, which must divide it; 0: by --batch_size_per_replica.",
        unit="photos",
        least=0,
    )
    bad_records: str = knob(
        "fail",
        "What to do with damaged records: fail, naming the first; or skip: leave them out, "
        "count them, and list them in bad_records.csv.",
        choices=("fail", "skip"),
    )
    shuffle_buffer: int = knob(
        2048, "Photos (as JPEG bytes) to shuffle among; 1: none.", unit="photos", least=1
    )
    cache: str = knob(
        "none",
        "What of training and validation to keep in memory: nothing, the records (JPEG), or the "
        "decoded pixels.",
        choices=("none", "records", "pixels"),
        free=True,
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        if self.folds == 1:
            yield "--folds=1: one part cannot both train and validate; use 2 or more, or 0"
        if self.fold and self.fold >= self.folds:
            yield f"--fold={self.fold}: folds count from 0, and there are --folds={self.folds}"
        if self.folds and not self.validates:
            yield f"--folds={self.folds} and --train_splits={self.train_splits}: a fold validates"

    @property
    def chooses(self) -> bool:
        """Whether other photos train or validate than those that lie in `train/` and `val/`."""
        return bool(self.folds or self.further or not self.validates)

    @property
    def validates(self) -> bool:
        """Whether some photos validate; else all that are labeled train."""
        return self.train_splits == "train"

    @property
    def further(self) -> tuple[str, ...]:
        """The folders of `--extra_data_dirs`."""
        return tuple(name.strip() for name in self.extra_data_dirs.split(",") if name.strip())

    @property
    def evaluation_size(self) -> int:
        """Side of the images of evaluation and prediction, pixels."""
        return self.eval_image_size or self.image_size
