"""The embedded data set: drawn flowers in the competition's file layout, made on first use.

Each of the 104 classes has its own petals (number, shape, rings), colours, pattern, centre and
arrangement; photos of a class differ in background, place, size, turn, tilt and light. Many classes
share their colours, so that a model has to see shapes. A photo is a function of (seed, split,
class, number, image size), whichever process draws it.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from flowers_tpu.data import records
from flowers_tpu.data.classes import FLOWERS
from flowers_tpu.example_data.photo import Photo, draw_jpeg, end_with_parent
from flowers_tpu.system import folders, terminal, workers
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.publish import mark, published

PHOTOS_PER_CLASS = {"train": 40, "val": 10, "test": 5}
_SHARDS = {"train": 16, "val": 4, "test": 4}


def example_data_dir(image_size: int) -> str:
    """Returns the folder of the example data of an image size, making it on first use.

    It is kept under `$XDG_CACHE_HOME` (or `~/.cache`). Of processes that need it at the same time
    one draws, and the others wait for it.

    Raises:
        RequestError: the folder cannot be written.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = f"tfrecords-jpeg-{image_size}x{image_size}"
    folder = os.path.join(cache, "flowers_tpu", "example-v1", name)
    if not os.path.isdir(folder):
        try:
            with workers.own_files():
                make_example_data(folder, image_size)
        except RequestError:
            if not os.path.isdir(folder):
                raise
    return folder


def make_example_data(
    output_dir: str,
    image_size: int,
    seed: int = 0,
    photos_per_class: Mapping[str, int] = PHOTOS_PER_CLASS,
    processes: int | None = None,
) -> None:
    """Draws a whole data set: shards in `train/`, `val/` and `test/`, and two text files.

    The text files are `classes.txt` and `sample_submission.csv` (`id,label`, every label 0);
    `drawn_flowers.json` says what was drawn. Equal arguments give equal bytes. The folder appears
    once it is complete; a process that is killed leaves at most a folder beside it whose name ends
    in `.part`.

    Args:
        output_dir: a local folder that does not exist yet.
        image_size: side of the photos, pixels.
        seed: of everything that is drawn; not negative.
        photos_per_class: their number by split, at least 1; the default makes 5,720 photos.
        processes: how many draw; None for one per core, at most 16.

    Raises:
        RequestError: the folder exists or cannot be written.
    """
    try:
        with published(output_dir, "data_dir", folders.DRAWN_FLOWERS, wait=True) as part:
            _write_data(
                part, image_size, seed, photos_per_class, processes or min(os.cpu_count() or 1, 16)
            )
            about = {"image_size": image_size, "seed": seed, "photos": dict(photos_per_class)}
            mark(part, folders.DRAWN_FLOWERS, about)
    except OSError as error:
        raise RequestError(f"{output_dir}: cannot be written ({error})") from error


def _write_data(
    folder: str, image_size: int, seed: int, photos_per_class: Mapping[str, int], processes: int
) -> None:
    photos = {
        split: _shuffled_photos(index, photos_per_class[split], seed, image_size)
        for index, split in enumerate(_SHARDS)
    }
    jpegs = _draw_all([photo for split in photos.values() for photo in split], processes)

    for split, num_shards in _SHARDS.items():
        serialized = [
            records.serialize_example(
                _photo_id(photo), jpegs[photo], None if split == "test" else photo.label
            )
            for photo in photos[split]
        ]
        records.write_shards(
            os.path.join(folder, split), serialized, image_size, min(num_shards, len(serialized))
        )
    _write_lines(os.path.join(folder, "classes.txt"), FLOWERS)
    rows = [f"{_photo_id(photo)},0" for photo in photos["test"]]
    _write_lines(os.path.join(folder, "sample_submission.csv"), ["id,label", *rows])


def _shuffled_photos(split: int, per_class: int, seed: int, image_size: int) -> list[Photo]:
    """Returns the photos of a split in the order of its shards, classes mixed."""
    photos = [
        Photo(seed, split, label, number, image_size)
        for label in range(len(FLOWERS))
        for number in range(per_class)
    ]
    order = np.random.default_rng([seed, split]).permutation(len(photos))
    return [photos[index] for index in order]


def _photo_id(photo: Photo) -> str:
    """Returns nine hexadecimal digits, like the competition's ids."""
    value = (photo.number * len(_SHARDS) + photo.split) * len(FLOWERS) + photo.label
    value += photo.seed * 0xC2B2AE3D3
    # Each step permutes the integers below 2**36: the photos of a seed cannot share an id.
    for _ in range(2):
        value %= 2**36
        value = (value ^ value >> 18) * 0x9E3779B97
    return f"{value % 2**36:09x}"


def _draw_all(photos: Sequence[Photo], processes: int) -> dict[Photo, bytes]:
    """Draws photos in parallel and returns their JPEG bytes."""

    def collect(jpegs: Iterable[bytes]) -> dict[Photo, bytes]:
        drawn = {}
        with terminal.bar(len(photos), "drawing flowers") as bar:
            for photo, jpeg in zip(photos, jpegs, strict=True):
                drawn[photo] = jpeg
                bar.update()
        return drawn

    if processes == 1:
        return collect(map(draw_jpeg, photos))
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), end_with_parent
    ) as pool:
        with _no_main_module():
            jpegs = pool.map(draw_jpeg, photos, chunksize=32)
        return collect(jpegs)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keeps processes that are spawned meanwhile from importing the caller's script anew.

    They would import its TensorFlow, and run it a second time where it lacks the usual guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _write_lines(path: str, lines: Sequence[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
