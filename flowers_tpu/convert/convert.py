"""From one's own photos to the competition's layout.

`photo_list` finds the photos, `photo_split` divides them, `photo_pixels` makes squares of them, and
`data.records` writes them. All of it is there or nothing.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import shutil
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from flowers_tpu.convert import (
    csv_list,
    oxford102,
    photo_list,
    photo_pixels,
    photo_split,
    record_list,
    tables,
)
from flowers_tpu.convert.options import ConvertOptions
from flowers_tpu.convert.photo_list import Photo
from flowers_tpu.convert.photo_pixels import Rendered, Style
from flowers_tpu.convert.tables import Converted
from flowers_tpu.data import classes, records
from flowers_tpu.system import folders, terminal
from flowers_tpu.system.errors import RequestError, RunError, first_line
from flowers_tpu.system.publish import mark, published

_AHEAD = 4  # photos per thread that may wait, converted, to be written


class Outcome(NamedTuple):
    """What became of the photos, each list by name."""

    converted: list[Converted]
    unreadable: list[tuple[str, str]]  # the name, and why


def convert(options: ConvertOptions) -> None:
    """Converts photos; prints tables of what was made, and warns of what could not be used.

    Equal photos, flags and versions of Pillow give equal bytes, with any number of threads.

    Args:
        options: see there.

    Raises:
        RequestError: a flag, the CSV or the folders are wrong, or no photo can be read; with
            `strict` also if one cannot.
        RunError: the data set cannot be written.
    """
    try:
        with published(
            options.output_dir, "output_dir", folders.DATA_SET, overwrite=options.overwrite
        ) as folder:
            summary = _convert(options, folder)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(
            f"--output_dir={options.output_dir}: cannot be written ({first_line(error)})"
        ) from error
    summary.show(options.output_dir)


def style_of(options: ConvertOptions) -> Style:
    """Returns what is made of every photo."""
    sizes = tuple(sorted({int(size) for size in options.sizes.split(",")}))
    return Style(sizes, options.crop, options.quality)


def _convert(options: ConvertOptions, folder: str) -> tables.Summary:
    """Writes the whole data set to an empty folder."""
    unpacked = os.path.join(folder, "unpacked")
    if options.from_tfrecords:
        listing = record_list.list_records(options, unpacked)
    elif options.oxford102:
        listing = oxford102.list_photos(options.oxford102)
    elif options.csv:
        listing = csv_list.list_csv(options.csv, options.photos)
    else:
        listing = photo_list.list_folder(options.photos)
    wanted = classes.read_classes(options.classes) if options.classes else listing.class_names
    names = photo_list.class_names(listing.photos, wanted)
    if len(names) == 1:
        logging.warning("There is one class only, %r: no model can learn from it.", names[0])
    with terminal.bar(len(listing.photos), "looking for copies") as bar:
        same_as = photo_list.find_identical(listing.photos, bar.update)
    splits = photo_split.assign_splits(
        listing.photos,
        same_as,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    photos = [p._replace(split=s) for p, s in zip(listing.photos, splits, strict=True)]
    shards = list(_shards(photos, options.shards, options.seed))
    outcome = _write_records(folder, shards, names, options)
    if options.from_tfrecords:
        shutil.rmtree(unpacked)
    _check(outcome, options)
    summary = tables.Summary(
        style_of(options), names, outcome.converted, outcome.unreadable, same_as, listing
    )
    summary.write(folder)
    mark(folder, folders.DATA_SET, _essence(options, outcome))
    return summary


def _shards(photos: Sequence[Photo], most: int, seed: int) -> Iterator[list[Photo]]:
    """Yields the photos of each shard, split by split, classes mixed."""
    for split in records.SPLITS:
        members = [photo for photo in photos if photo.split == split]
        members.sort(key=lambda photo: photo_split.hash_of(seed, "order", photo.id))
        bounds = np.linspace(0, len(members), min(most, len(members)) + 1).astype(int)
        for begin, end in itertools.pairwise(bounds):
            yield members[begin:end]


def _write_records(
    folder: str, shards: Sequence[Sequence[Photo]], names: Sequence[str], options: ConvertOptions
) -> Outcome:
    """Converts photos in parallel and writes them in order; holds only a few at a time."""
    converted, unreadable = [], []
    labels = {name: label for label, name in enumerate(names)}
    written: collections.Counter[str] = collections.Counter()  # shards, by split
    photos = [photo for shard in shards for photo in shard]
    with (
        terminal.bar(len(photos), "converting") as bar,
        contextlib.closing(_render_all(photos, options)) as rendered,
    ):
        for shard in shards:
            with contextlib.ExitStack() as writers:
                write = {}
                for photo, result in zip(shard, rendered, strict=False):
                    bar.update()
                    if isinstance(result, str):
                        unreadable.append((photo.name, result))
                        continue
                    assert photo.split is not None, "all are chosen"
                    if not write:  # not before there is a photo: no shard is empty
                        number, written[photo.split] = (
                            written[photo.split],
                            written[photo.split] + 1,
                        )
                        for size in result.jpegs:
                            directory = tables.split_folder(folder, size, photo.split)
                            writer = records.shard_writer(directory, number, size)
                            write[size] = writers.enter_context(writer)
                    hides = photo.split == "test" and not options.test_labels
                    label = None if hides else labels.get(photo.label or "")
                    for size, jpeg in result.jpegs.items():
                        write[size](records.serialize_example(photo.id, jpeg, label))
                    converted.append(Converted(photo, result.width, result.height))
    return Outcome(sorted(converted, key=lambda c: c.photo.name), sorted(unreadable))


def _render_all(
    photos: Sequence[Photo], options: ConvertOptions
) -> Generator[Rendered | str, None, None]:
    """Yields every photo's JPEGs, or why it cannot be read, in order and not far ahead of use.

    Threads suffice: Pillow gives the interpreter free while it decodes, scales and encodes.
    """
    threads = options.threads or os.cpu_count() or 1
    style = style_of(options)
    read = photo_pixels.render_or_keep if options.from_tfrecords else photo_pixels.render

    def render(photo: Photo) -> Rendered | str:
        try:
            return read(photo.path, style)
        except Exception as error:  # whatever Pillow's readers make of bytes that are no picture
            return photo_pixels.why_unreadable(photo.path, error)

    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(threads) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of large photos, damaged EXIF, …
        try:
            for photo in photos:
                waiting.append(pool.submit(render, photo))
                if len(waiting) > threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _check(outcome: Outcome, options: ConvertOptions) -> None:
    if outcome.converted and not (options.strict and outcome.unreadable):
        return
    if not outcome.unreadable:
        raise RequestError(f"--{_given(options)}: there are no photos there")
    total = len(outcome.converted) + len(outcome.unreadable)
    listed = "".join(f"\n  {name}: {problem}" for name, problem in outcome.unreadable[:10])
    more = len(outcome.unreadable) - 10
    raise RequestError(
        f"{len(outcome.unreadable)} of {total} photos cannot be read, and nothing was written"
        f"{' (--strict)' if outcome.converted else ''}:{listed}"
        f"{f' and {more} more' if more > 0 else ''}"
    )


def _given(options: ConvertOptions) -> str:
    """The flag that says where photos are, with its value."""
    name = next(n for n in ("from_tfrecords", "csv", "photos") if getattr(options, n))
    return f"{name}={getattr(options, name)}"


def _essence(options: ConvertOptions, outcome: Outcome) -> dict[str, Any]:
    """What the data set depends on beside the photos; nothing of where and how fast it was made."""
    names = ("crop", "quality", "shards", "val_fraction", "test_fraction", "test_labels", "seed")
    return {
        "sizes": style_of(options).sizes,
        **{name: getattr(options, name) for name in names},
        "photos": len(outcome.converted),
        "unreadable": len(outcome.unreadable),
    }
