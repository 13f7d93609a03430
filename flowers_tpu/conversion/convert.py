"""What `scripts/make_tfrecords.py` calls: from one's own photos to the competition's layout.

`photo_list` finds the photos, `photo_split` divides them, `photo_pixels` makes squares of them,
`records` writes them, and `output` sees to it that all of it is there or nothing.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import UnidentifiedImageError

from flowers_tpu import progress
from flowers_tpu.conversion import photo_list, photo_pixels, photo_split, tables
from flowers_tpu.conversion.output import mark, written_whole
from flowers_tpu.conversion.photo_list import Photo
from flowers_tpu.conversion.photo_pixels import Rendered, Style
from flowers_tpu.conversion.tables import Converted
from flowers_tpu.data import classes, records
from flowers_tpu.errors import RequestError, RunError, first_line

_AHEAD = 4  # photos per thread that may wait, converted, to be written


@dataclasses.dataclass(frozen=True)
class Settings:
    """A conversion, completely: the flags of the script, which are explained there."""

    photos: str
    csv: str
    output_dir: str
    sizes: str
    crop: str
    quality: int
    shards: int
    val_fraction: float
    test_fraction: float
    seed: int
    classes: str
    threads: int
    strict: bool
    overwrite: bool

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise RequestError(problem)

    @property
    def style(self) -> Style:
        """What is made of every photo."""
        sizes = tuple(sorted({int(size) for size in self.sizes.split(",")}))
        return Style(sizes, self.crop, self.quality)


class Outcome(NamedTuple):
    """What became of the photos, each list by name."""

    converted: list[Converted]
    unreadable: list[tuple[str, str]]  # the name, and why


def convert(**flags: Any) -> None:
    """Converts photos; prints tables of what was made, and warns of what could not be used.

    Equal photos, flags and versions of Pillow give equal bytes, with any number of threads.

    Args:
        flags: the fields of `Settings`.

    Raises:
        RequestError: a flag, the CSV or the folders are wrong, or no photo can be read; with
            `strict` also if one cannot.
        RunError: the data set cannot be written.
    """
    settings = Settings(**flags)
    try:
        with written_whole(settings.output_dir, overwrite=settings.overwrite) as folder:
            summary = _convert(settings, folder)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(
            f"--output_dir={settings.output_dir}: cannot be written ({first_line(error)})"
        ) from error
    summary.show(settings.output_dir)


def _convert(settings: Settings, folder: str) -> tables.Summary:
    """Writes the whole data set to an empty folder."""
    if settings.csv:
        listing = photo_list.list_csv(settings.csv, settings.photos)
    else:
        listing = photo_list.list_folder(settings.photos)
    wanted = classes.read_classes(settings.classes) if settings.classes else ()
    names = photo_list.class_names(listing.photos, wanted)
    with progress.bar(len(listing.photos), "looking for copies") as bar:
        same_as = photo_list.find_identical(listing.photos, bar.update)
    splits = photo_split.assign_splits(
        listing.photos,
        same_as,
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )
    photos = [p._replace(split=s) for p, s in zip(listing.photos, splits, strict=True)]
    shards = list(_shards(photos, settings.shards, settings.seed))
    outcome = _write_records(folder, shards, names, settings)
    _check(outcome, settings.strict)
    summary = tables.Summary(
        settings.style, names, outcome.converted, outcome.unreadable, same_as, listing
    )
    summary.write(folder)
    mark(folder, _essence(settings, outcome))
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
    folder: str, shards: Sequence[Sequence[Photo]], names: Sequence[str], settings: Settings
) -> Outcome:
    """Converts photos in parallel and writes them in order; holds only a few at a time."""
    converted, unreadable = [], []
    labels = {name: label for label, name in enumerate(names)}
    written: collections.Counter[str] = collections.Counter()  # shards, by split
    photos = [photo for shard in shards for photo in shard]
    with (
        progress.bar(len(photos), "converting") as bar,
        contextlib.closing(_render_all(photos, settings)) as rendered,
    ):
        for shard in shards:
            with contextlib.ExitStack() as writers:
                write = {}
                for photo, result in zip(shard, rendered, strict=False):
                    bar.update()
                    if isinstance(result, str):
                        unreadable.append((photo.name, result))
                        continue
                    if not write:  # not before there is a photo: no shard is empty
                        number, written[photo.split] = (
                            written[photo.split],
                            written[photo.split] + 1,
                        )
                        for size in result.jpegs:
                            directory = tables.split_folder(folder, size, photo.split)
                            writer = records.shard_writer(directory, number, size)
                            write[size] = writers.enter_context(writer)
                    label = None if photo.split == "test" else labels[photo.label]
                    for size, jpeg in result.jpegs.items():
                        write[size](records.serialize_example(photo.id, jpeg, label))
                    converted.append(Converted(photo, result.width, result.height))
    return Outcome(sorted(converted, key=lambda c: c.photo.name), sorted(unreadable))


def _render_all(photos: Sequence[Photo], settings: Settings) -> Iterator[Rendered | str]:
    """Yields every photo's JPEGs, or why it cannot be read, in order and not far ahead of use.

    Threads suffice: Pillow gives the interpreter free while it decodes, scales and encodes.
    """
    threads = settings.threads or os.cpu_count() or 1
    style = settings.style

    def render(photo: Photo) -> Rendered | str:
        try:
            return photo_pixels.render(photo.path, style)
        except UnidentifiedImageError:
            return "no picture that Pillow can read"
        except Exception as error:  # whatever Pillow's readers make of bytes that are no picture
            return getattr(error, "strerror", None) or first_line(error)

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


def _check(outcome: Outcome, strict: bool) -> None:
    if outcome.converted and not (strict and outcome.unreadable):
        return
    if not outcome.unreadable:
        raise RequestError("--photos, --csv: there are no photos there")
    total = len(outcome.converted) + len(outcome.unreadable)
    listed = "".join(f"\n  {name}: {problem}" for name, problem in outcome.unreadable[:10])
    more = len(outcome.unreadable) - 10
    raise RequestError(
        f"{len(outcome.unreadable)} of {total} photos cannot be read, and nothing was written"
        f"{' (--strict)' if outcome.converted else ''}:{listed}"
        f"{f' and {more} more' if more > 0 else ''}"
    )


def _essence(settings: Settings, outcome: Outcome) -> dict[str, Any]:
    """What the data set depends on beside the photos; nothing of where and how fast it was made."""
    names = ("crop", "quality", "shards", "val_fraction", "test_fraction", "seed")
    return {
        "sizes": settings.style.sizes,
        **{name: getattr(settings, name) for name in names},
        "photos": len(outcome.converted),
        "unreadable": len(outcome.unreadable),
    }


def _problems(settings: Settings) -> Iterator[str]:
    """Yields what is wrong with the flags, as messages."""
    if not settings.photos and not settings.csv:
        yield "--photos=FOLDER or --csv=FILE is needed: the photos to convert"
    if not settings.output_dir:
        yield "--output_dir=FOLDER is needed: where the data set goes"
    for name in ("photos", "csv", "output_dir"):
        if "://" in (value := getattr(settings, name)):
            yield f"--{name}={value}: must be local; copy the data set to a bucket afterwards"
    output, photos = (os.path.realpath(p) for p in (settings.output_dir, settings.photos))
    if settings.photos and not settings.csv and os.path.commonpath([output, photos]) == photos:
        yield f"--output_dir={settings.output_dir}: lies within --photos; choose another folder"
    sizes = settings.sizes.split(",")
    if not all(size.strip().isdecimal() and 1 <= int(size) <= 16384 for size in sizes):
        yield f"--sizes={settings.sizes}: expected sides in pixels, such as 192,224,331,512"
    for name in ("val_fraction", "test_fraction"):
        if not 0 <= (value := getattr(settings, name)) < 1 or not math.isfinite(value):
            yield f"--{name}={value}: must be at least 0 and below 1"
    if settings.val_fraction + settings.test_fraction >= 1:
        yield (
            f"--val_fraction={settings.val_fraction} and --test_fraction={settings.test_fraction} "
            "leave nothing to train on"
        )
    if not 1 <= settings.quality <= 100:
        yield f"--quality={settings.quality}: must be from 1 to 100"
    if settings.shards < 1:
        yield f"--shards={settings.shards}: must be at least 1"
    for name in ("seed", "threads"):
        if getattr(settings, name) < 0:
            yield f"--{name}={getattr(settings, name)}: must not be negative"
