"""The shards of a split: found by their names, read record by record."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from flowers_tpu.data import records, what_else
from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError

_SHARD_NAME = re.compile(r"^(\d+)-(\d+)x(\d+)-(\d+)\.tfrec$")
_SIZE_FOLDER = re.compile(r"^tfrecords-jpeg-(\d+)x(\d+)/?$")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file, with what its name says of it."""

    path: str
    image_size: int  # side of its square photos, pixels
    count: int  # records in use: all of them, but for those that follow
    left_out: tuple[int, ...] = ()  # numbers of those that cannot be used, from 0
    passed_over: tuple[int, ...] = ()  # of those that can be, but do not belong to the split

    @property
    def records(self) -> int:
        """Records that the file has, or should have."""
        return self.count + len(self.left_out) + len(self.passed_over)

    def in_use(self) -> list[bool]:
        """Whether each record is in use, up to the last one that is."""
        others = {*self.left_out, *self.passed_over}
        flags = [n not in others for n in range(self.records)]
        while flags and not flags[-1]:
            flags.pop()
        return flags

    def only(self, places: np.ndarray) -> "Shard":
        """Returns the same with nothing in use but the examples at some places.

        Args:
            places: `[count]` int, among the examples in use; or `[examples]` bool.
        """
        numbers = np.flatnonzero(self.in_use())
        passed_over = {*self.passed_over, *numbers.tolist()} - {*numbers[places].tolist()}
        count = len(numbers[places])
        return dataclasses.replace(self, count=count, passed_over=tuple(sorted(passed_over)))


def data_folder(data_dir: str, image_size: int) -> str:
    """Returns the folder that holds `train/`: `data_dir` itself, or its folder for the image size.

    If there is none of just that size, it is the one with the next larger photos, else with the
    largest there are, which are enlarged then.

    Raises:
        RequestError: there is no such folder.
    """
    if not files.is_dir(data_dir):
        raise RequestError(f"--data_dir={data_dir}: {what_else.missing(data_dir)}")
    entries = files.list_dir(data_dir)
    found = filter(None, map(_SIZE_FOLDER.match, entries))
    sizes = sorted(int(m.group(1)) for m in found if m.group(1) == m.group(2))
    if not sizes:
        return data_dir
    size = next((size for size in sizes if size >= image_size), sizes[-1])
    return files.join(data_dir, f"tfrecords-jpeg-{size}x{size}")


def find_shards(folder: str, split: str) -> tuple[Shard, ...]:
    """Returns the shards of a split, in name order.

    Raises:
        RequestError: the split's folder is missing or empty, a name is not a shard's, or photos
            are not square, or not all of one size.
    """
    directory = files.join(folder, split)
    if not files.is_dir(directory):
        raise RequestError(
            f"--data_dir: {directory}: no such folder; a data set has the folders "
            f"{_enumerate(records.SPLITS)} with shards named like 00-192x192-128.tfrec"
            f"{what_else.advice(folder)}"
        )
    names = sorted(n for n in files.list_dir(directory) if n.endswith(".tfrec"))
    if not names:
        raise RequestError(
            f"--data_dir: {directory}: holds no .tfrec file{what_else.advice(directory)}"
        )
    shards = []
    for name in names:
        match = _SHARD_NAME.match(name)
        path = files.join(directory, name)
        if not match:
            raise RequestError(
                f"{path}: not a shard's name; expected NUMBER-SIZExSIZE-COUNT.tfrec, "
                f"like 00-192x192-128.tfrec{what_else.advice(directory)}"
            )
        height, width, count = (int(match.group(group)) for group in (2, 3, 4))
        if height != width:
            raise RequestError(
                f"{path}: holds photos of {height}x{width} pixels by its name, but photos must be "
                "square"
            )
        shards.append(Shard(path, height, count))
        if height != shards[0].image_size:
            raise RequestError(
                f"{path}: holds photos of {height}x{width} pixels by its name, but "
                f"{shards[0].path} of another size; those of a split must all have the same"
            )
    if not sum(shard.count for shard in shards):
        raise RequestError(f"--data_dir: {directory}: its shards hold no records")
    return tuple(shards)


def oddities(folder: str, split: str) -> list[str]:
    """Returns what looks as if shards of a split were missing, in words.

    Their names are numbered; and a download that was broken off leaves a name with something after
    `.tfrec`.
    """
    directory = files.join(folder, split)
    names = files.list_dir(directory)
    numbers = sorted({int(m.group(1)) for m in map(_SHARD_NAME.match, names) if m})
    missing = sorted(set(range(numbers[-1] + 1)) - set(numbers)) if numbers else []
    found = [f"{directory}: {name}: looks like a download that did not end" for name in names
             if ".tfrec" in name and not name.endswith(".tfrec")]  # fmt: skip
    if missing:
        found.append(
            f"{directory}: no shard {missing[0]:02d}, though there is one {numbers[-1]:02d}: are "
            f"{len(missing)} missing?"
        )
    return found


def shard_reader(shards: Sequence[Shard]) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Returns what gives the serialized records in use of the shard of a number, in file order."""
    paths = tf.constant([shard.path for shard in shards])

    def read(number: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(tf.gather(paths, number), None, records.READ_BUFFER)

    if not any(shard.left_out or shard.passed_over for shard in shards):
        return read
    # Nothing after the last record in use is read: the file may be damaged there.
    in_use = tf.ragged.constant([shard.in_use() for shard in shards], tf.bool, ragged_rank=1)

    def read_used(number: tf.Tensor) -> tf.data.Dataset:
        used = in_use[number]
        numbered = read(number).take(tf.size(used, tf.int64)).enumerate()
        return numbered.filter(lambda n, _: used[n]).map(lambda _, serialized: serialized)

    return read_used


def in_file_order(shards: Sequence[Shard]) -> tf.data.Dataset:
    """Gives the serialized records in use of shards, one after the other."""
    return tf.data.Dataset.range(len(shards)).flat_map(shard_reader(shards))


def _enumerate(items: Sequence[object]) -> str:
    *rest, last = (str(item) for item in items)
    return f"{', '.join(rest)} and {last}" if rest else last
