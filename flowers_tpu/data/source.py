"""Where the examples of a split come from: its files, or memory.

A source gives the *elements* of a shard, which pass through shuffle and skip, and makes examples of
them. Elements are serialized records, or numbers where the split is in memory; the order is the
same for all, as it only counts.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.decode import Decoder
from flowers_tpu.data.shards import in_file_order, shard_reader
from flowers_tpu.data.splits import Split
from flowers_tpu.system import memory, terminal

Example = dict[str, tf.Tensor]

_HOST = "CPU:0"  # not in the memory of a GPU, where TensorFlow would put a list by itself
_FILLED_AT_ONCE = 64  # photos between two movements of the progress bar


@dataclasses.dataclass(frozen=True)
class Source:
    """Gives the examples of a split: `image` `[side, side, 3]` uint8 and `label` int32.

    Attributes:
        split: the split.
        side: of the images, pixels.
        elements: maps the number of a shard (int64 scalar) to the dataset of its elements.
        example: maps an element to its example.
        examples: maps `[batch]` elements to a batch of examples where that is cheaper; else None.
    """

    split: Split
    side: int
    elements: Callable[[tf.Tensor], tf.data.Dataset]
    example: Callable[[tf.Tensor], Example]
    examples: Callable[[tf.Tensor], Example] | None = None


def from_files(split: Split, decode: Decoder) -> Source:
    """Reads and decodes each time."""
    read, numbers = shard_reader(split.shards), _numbers(split)

    def example(serialized: tf.Tensor) -> Example:
        parsed = records.parse(serialized)
        return {"image": decode(parsed["image"]), "label": parsed["label"]}

    if not split.relabeled:
        return Source(split, decode.side, read, example)
    labels = _labels(split)

    def numbered(shard: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.zip((numbers(shard), read(shard)))

    def relabeled(element: tuple[tf.Tensor, tf.Tensor]) -> Example:
        number, serialized = element
        return {**example(serialized), "label": labels[number]}

    return Source(split, decode.side, numbered, relabeled)


def from_records(split: Split, decode: Decoder) -> Source:
    """Keeps the serialized records in memory, and decodes each time."""
    kept = _Kept(in_file_order(split.shards), split.size, f"reading {split.name}")
    labels = _labels(split)

    def example(number: tf.Tensor) -> Example:
        return {"image": decode(records.parse(kept.item(number))["image"]), "label": labels[number]}

    return Source(split, decode.side, _numbers(split), example)


def from_pixels(split: Split, decode: Decoder) -> Source:
    """Decodes once, and keeps the pixels in memory."""
    decoded = in_file_order(split.shards).map(
        lambda serialized: decode(records.parse(serialized)["image"]),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    pixels = _Kept(decoded, split.size, f"decoding {split.name}")
    labels = _labels(split)

    def example(number: tf.Tensor) -> Example:
        return {"image": pixels.item(number), "label": labels[number]}

    def examples(numbers: tf.Tensor) -> Example:
        return {"image": pixels.items(numbers), "label": tf.gather(labels, numbers)}

    return Source(split, decode.side, _numbers(split), example, examples)


def from_features(split: Split, features: np.ndarray) -> Source:
    """Gives, in place of photos, what is known of them.

    Args:
        split: with labels.
        features: `[examples, …]`, in file order.
    """
    with tf.device(_HOST):
        table, labels = tf.constant(features), tf.constant(split.labels)

    def example(number: tf.Tensor) -> Example:
        return {"image": table[number], "label": labels[number]}

    return Source(split, 0, _numbers(split), example)


def bytes_of(cache: str, split: Split, decode: Decoder) -> int:
    """Returns the memory that a cache takes, but for a little around each record.

    Args:
        cache: `none`, `records` or `pixels`.
        split: what it keeps.
        decode: gives the pixels.
    """
    if cache == "none":
        return 0
    if cache == "records":
        return int(split.jpeg_sizes.sum())
    return split.size * decode.side**2 * 3


def check_memory(cache: str, needed: int) -> None:
    """Raises RequestError where a cache would not fit into the memory that is available.

    Args:
        cache: `records` or `pixels`, for the message.
        needed: bytes.
    """
    smaller = "--cache=records or " if cache == "pixels" else ""
    advice = f"use {smaller}--cache=none, a smaller --image_size, or a machine with more memory"
    memory.check(needed, f"--cache={cache}", advice)


# By --cache.
MAKERS: dict[str, Callable[[Split, Decoder], Source]] = {
    "none": from_files,
    "records": from_records,
    "pixels": from_pixels,
}


class _Kept:
    """The tensors of a dataset, all of one shape, in memory.

    They stand in a list, each as it was made: a single tensor for all of them would be there twice
    while it is put together.
    """

    def __init__(self, dataset: tf.data.Dataset, size: int, title: str):
        self._shape = dataset.element_spec.shape
        self._element = {
            "element_shape": tf.constant(self._shape.as_list(), tf.int32),
            "element_dtype": dataset.element_spec.dtype,
        }
        with tf.device(_HOST):
            kept = tf.raw_ops.TensorListReserve(num_elements=size, **self._element)

        @tf.function
        def fill(kept, iterator, begin, end):
            for index in tf.range(begin, end):
                kept = tf.raw_ops.TensorListSetItem(
                    input_handle=kept, index=index, item=next(iterator)
                )
            return kept

        iterator = iter(dataset)
        with terminal.bar(size, title) as bar:
            for begin in range(0, size, _FILLED_AT_ONCE):
                end = min(begin + _FILLED_AT_ONCE, size)
                with tf.device(_HOST):
                    kept = fill(kept, iterator, tf.constant(begin), tf.constant(end))
                bar.update(end - begin)
        self._list = kept

    def item(self, number: tf.Tensor) -> tf.Tensor:
        """Returns the tensor of a number."""
        index = tf.cast(number, tf.int32)
        item = tf.raw_ops.TensorListGetItem(input_handle=self._list, index=index, **self._element)
        return tf.ensure_shape(item, self._shape)

    def items(self, numbers: tf.Tensor) -> tf.Tensor:
        """Returns the tensors of `[batch]` numbers in one."""
        indices = tf.cast(numbers, tf.int32)
        items = tf.raw_ops.TensorListGather(
            input_handle=self._list, indices=indices, **self._element
        )
        return tf.ensure_shape(items, [numbers.shape[0], *self._shape])


def _numbers(split: Split) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Gives the numbers of a shard's examples, in file order."""
    ends = np.cumsum([shard.count for shard in split.shards], dtype=np.int64)
    bounds = tf.constant([0, *ends], tf.int64)
    return lambda shard: tf.data.Dataset.range(bounds[shard], bounds[shard + 1])


def _labels(split: Split) -> tf.Tensor:
    """The labels in file order; of a split that has none -1."""
    none = np.full(split.size, records.NO_LABEL, np.int32)
    return tf.constant(none if split.labels is None else split.labels)
