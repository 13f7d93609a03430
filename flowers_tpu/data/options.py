"""Which photos, and how they come to a model."""

import dataclasses
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

    @property
    def evaluation_size(self) -> int:
        """Side of the images of evaluation and prediction, pixels."""
        return self.eval_image_size or self.image_size
