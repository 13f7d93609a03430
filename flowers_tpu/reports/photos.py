"""Photos of a split by their number, and sheets of photos with titles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from flowers_tpu.data import records
from flowers_tpu.data.shards import Shard, shard_reader
from flowers_tpu.data.splits import Split
from flowers_tpu.reports import style
from flowers_tpu.system import terminal

_SHARDS_READ_AT_ONCE = 8  # enough to hide the latency of a bucket

# Lengths of a sheet, in inches; with `style.DPI` a photo of 192 px is shown pixel by pixel.
_PHOTO, _GAP, _MARGIN = 1.6, 0.12, 0.15
_ROW_TITLE = 1.1
# Sizes of its texts, in points.
_TITLE_SIZE, _SHEET_TITLE_SIZE = 8, 12
_LINE = 1.25  # the height of a line, in sizes of its font
_POINT = 1 / 72  # inches


def read_photos(split: Split, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Reads and decodes some photos of a split.

    Args:
        split: where they are; records that are left out are not counted.
        indices: their numbers in file order, as in `split.ids`; in any order, also repeated.

    Returns:
        In the order of `indices`, `[height, width, 3]` uint8 each.

    Raises:
        IndexError: a number is negative, or not below `split.size`.
    """
    return [decode(jpeg) for jpeg in read_jpegs(split, indices)]


def decode(jpeg: bytes) -> np.ndarray:
    """Decodes a photo to `[height, width, 3]` uint8."""
    return tf.io.decode_jpeg(jpeg, channels=3).numpy()


def read_jpegs(split: Split, indices: Sequence[int] | np.ndarray) -> list[bytes]:
    """Reads some photos of a split as the bytes of their JPEG files; see `read_photos`."""
    wanted = np.unique(np.asarray(indices, np.int64))
    if not len(wanted):
        return []
    if wanted[0] < 0 or wanted[-1] >= split.size:
        raise IndexError(f"photos {wanted[0]} to {wanted[-1]} of {split.size}, counted from 0")
    ends = np.cumsum([shard.count for shard in split.shards])
    shards = []
    for shard, end in zip(split.shards, ends, strict=True):
        begin = end - shard.count
        if len(places := wanted[(begin <= wanted) & (wanted < end)] - begin):
            shards.append(shard.only(places))
    dataset = serialized(shards, in_order=True).map(lambda record: records.parse(record)["image"])
    jpegs = {}
    with terminal.bar(len(wanted), f"reading {split.name}") as bar:
        for index, jpeg in zip(wanted, dataset.as_numpy_iterator(), strict=True):
            jpegs[index] = jpeg
            bar.update()
    return [jpegs[index] for index in indices]


def serialized(shards: Sequence[Shard], *, in_order: bool) -> tf.data.Dataset:
    """Gives the serialized records in use of shards, several of which are read at once.

    Args:
        shards: at least one.
        in_order: in file order, which may hold whole shards in memory; else as they come.
    """
    # With blocks as long as any shard, one shard is given after another.
    return tf.data.Dataset.range(len(shards)).interleave(
        shard_reader(shards),
        cycle_length=min(_SHARDS_READ_AT_ONCE, len(shards)),
        block_length=max(shard.count for shard in shards) if in_order else 1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=in_order,
    )


def sheet(
    photos: Sequence[np.ndarray | None],
    titles: Sequence[str] | None,
    *,
    columns: int,
    colors: Sequence[str] | None = None,
    title: str = "",
    row_titles: Sequence[str] | None = None,
) -> Figure:
    """Returns a grid of photos, row by row, each with its title above it.

    Titles are wrapped to the width of a photo; a row is as high as its longest title wants.

    Args:
        photos: `[height, width, 3]` uint8 each; None leaves its place empty.
        titles: of the photos, '' for none; None: no photo has one.
        columns: photos in a row.
        colors: of the titles; None: black.
        title: of the sheet.
        row_titles: to the left of the rows; None: none.
    """
    titles = [""] * len(photos) if titles is None else titles
    colors = ["black"] * len(photos) if colors is None else colors
    columns = min(columns, max(1, len(photos)))
    lines = [style.wrapped(text, _PHOTO, _TITLE_SIZE) for text in titles]
    rows = [slice(begin, begin + columns) for begin in range(0, len(photos), columns)]
    line = _TITLE_SIZE * _LINE * _POINT
    title_heights = [max(map(len, lines[row])) * line for row in rows]

    left = _MARGIN + (_ROW_TITLE + _GAP if row_titles else 0)
    width = left + columns * (_PHOTO + _GAP) - _GAP + _MARGIN
    heading = style.wrapped(title, width - 2 * _MARGIN, _SHEET_TITLE_SIZE)
    heading_height = len(heading) * _SHEET_TITLE_SIZE * _LINE * _POINT
    height = 2 * _MARGIN + heading_height + sum(title_heights) + len(rows) * (_PHOTO + _GAP)

    drawn = Figure(figsize=(width, height), facecolor="white")

    def write(text: Sequence[str], x: float, y: float, **how: Any) -> None:
        how = {"ha": "center", "va": "top", "linespacing": _LINE - 0.05, "parse_math": False, **how}
        drawn.text(x / width, y / height, "\n".join(text), **how)

    top = height - _MARGIN
    write(heading, width / 2, top, fontsize=_SHEET_TITLE_SIZE)
    top -= heading_height
    for number, row in enumerate(rows):
        bottom = top - _GAP - title_heights[number] - _PHOTO
        for column, index in enumerate(range(len(photos))[row]):
            if (pixels := photos[index]) is None:
                continue
            x = left + column * (_PHOTO + _GAP)
            axes = drawn.add_axes((x / width, bottom / height, _PHOTO / width, _PHOTO / height))
            axes.imshow(pixels)
            axes.set_axis_off()
            write(
                lines[index],
                x + _PHOTO / 2,
                bottom + _PHOTO + 0.5 * line,
                va="baseline",  # of the last line
                fontsize=_TITLE_SIZE,
                color=colors[index],
            )
        if row_titles:
            text = style.wrapped(row_titles[number], _ROW_TITLE, _TITLE_SIZE)
            middle = bottom + _PHOTO / 2
            write(text, _MARGIN + _ROW_TITLE, middle, ha="right", va="center", fontsize=_TITLE_SIZE)
        top = bottom
    return drawn
