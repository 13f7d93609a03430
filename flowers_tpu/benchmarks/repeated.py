"""A data set as large as the competition's, of the photos at hand repeated under new ids."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator

import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.shards import shard_reader
from flowers_tpu.data.splits import Split
from flowers_tpu.runs.recipe import Data
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError

_SHARDS = 16  # as the competition's


@contextlib.contextmanager
def repeated(data: Data, photos: int) -> Iterator[str]:
    """Gives the folder of a training split of so many photos; it is removed at the end.

    Args:
        data: whose training photos are repeated.
        photos: their number.

    Raises:
        RequestError: the temporary folder has too little room.
    """
    split = data.splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        needed, free = split.jpeg_sizes.mean() * photos, shutil.disk_usage(folder).free
        if needed > free:
            raise RequestError(
                f"--many_photos={photos}: needs {needed / 1e9:.1f} GB on disk, but {folder} has "
                f"{free / 1e9:.1f} GB; set TMPDIR to another place, or take fewer"
            )
        with open(os.path.join(folder, "classes.txt"), "w") as file:
            file.writelines(f"{name}\n" for name in data.class_names)
        _write(split, os.path.join(folder, "train"), photos)
        yield folder


def _write(split: Split, directory: str, photos: int) -> None:
    read = shard_reader(split.shards)
    serialized = tf.data.Dataset.range(len(split.shards)).flat_map(read).map(records.parse)
    at_hand = [
        (example["image"], int(example["label"])) for example in serialized.as_numpy_iterator()
    ]
    endless = zip(itertools.count(), itertools.cycle(at_hand), strict=False)
    with terminal.bar(photos, "repeating photos") as bar:
        for shard in range(_SHARDS):
            count = (photos * (shard + 1)) // _SHARDS - (photos * shard) // _SHARDS
            with records.shard_writer(directory, shard, split.photo_size) as write:
                for number, (jpeg, label) in itertools.islice(endless, count):
                    write(records.serialize_example(f"photo-{number:06d}", jpeg, label))
            bar.update(count)
