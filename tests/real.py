"""Real photos, where they are at hand: FLOWERS_TPU_PHOTOS names a data set's folder.

It has train/ and val/ as docs/data.md describes them. Else the Oxford 102 flowers beside the
checkout, in shared/data/, are taken; where there is none, tests of them are skipped.
"""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from flowers_tpu.data import records

_BESIDE = Path(__file__).parents[2] / "shared/data/oxford102/tfrecords-jpeg-192x192"


class Real:
    """A data set of real photos."""

    folder = Path(os.environ.get("FLOWERS_TPU_PHOTOS", _BESIDE))
    needed = pytest.mark.skipif(
        not folder.is_dir(), reason="no real photos: FLOWERS_TPU_PHOTOS names no folder of them"
    )

    def jpegs(self, *splits: str) -> list[bytes]:
        """Returns the files of splits, in file order."""
        paths = [str(p) for split in splits for p in sorted((self.folder / split).glob("*.tfrec"))]
        dataset = tf.data.TFRecordDataset(paths).map(lambda record: records.parse(record)["image"])
        return list(dataset.as_numpy_iterator())


REAL = Real()
