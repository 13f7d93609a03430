"""Sheets of photos of a data set: samples, a class, augmentation, byte-identical photos."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flowers_tpu.data import decode
from flowers_tpu.data.augment import apply, draws
from flowers_tpu.data.augment.options import Augmentation
from flowers_tpu.data.splits import Split
from flowers_tpu.reports import photos

_SAMPLE, _COLUMNS = 20, 5
_AUGMENTED_PHOTOS, _DRAWS = 5, 6
_GROUPS_SHOWN, _PHOTOS_OF_GROUP_SHOWN = 12, 5
_KINDS = {"duplicates": "byte-identical photos", "near_copies": "near-copies"}


def random_sample(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns at most `count` of some numbers, without repetition, in a random order."""
    return np.random.default_rng(seed).permutation(indices)[:count]


def sample_sheet(split: Split, class_names: Sequence[str], *, seed: int) -> Figure:
    """Shows random photos of a split, with their classes where they have labels."""
    shown = random_sample(np.arange(split.size), _SAMPLE, seed)
    titles = None
    if split.labels is not None:
        titles = [class_names[int(label)] for label in split.labels[shown]]
    title = f"{split.name}: {len(shown)} of {split.size:,} photos"
    return photos.sheet(photos.read_photos(split, shown), titles, columns=_COLUMNS, title=title)


def class_sheet(
    splits: Sequence[Split], label: int, class_name: str, *, seed: int
) -> Figure | None:
    """Shows random photos of one class, titled with split and id; None where there are none.

    Args:
        splits: labeled ones.
        label: of the class.
        class_name: its name.
        seed: of the choice, where a split has more photos of the class than are shown.
    """
    found, titles, counts = [], [], []
    for split in splits:
        members = np.flatnonzero(split.labels == label)
        shown = random_sample(members, _SAMPLE, seed)
        found += photos.read_photos(split, shown)
        titles += [f"{split.name} {split.ids[index]}" for index in shown]
        part = f" ({len(shown)} shown)" if len(shown) < len(members) else ""
        counts.append(f"{len(members):,} in {split.name}{part}")
    if not found:
        return None
    title = f"{class_name} (label {label}): {', '.join(counts)}"
    return photos.sheet(found, titles, columns=_COLUMNS, title=title)


def augmentation_sheet(
    split: Split,
    class_names: Sequence[str],
    augment_photo: Callable[[bytes, int], np.ndarray],
    *,
    seed: int,
) -> Figure:
    """Shows what training makes of a few photos: one a row, first as it is, then draw by draw.

    Args:
        split: the training split.
        class_names: by label.
        augment_photo: gives from a JPEG, and the number of an example, what the model gets.
        seed: of the choice of photos.
    """
    shown = random_sample(np.arange(split.size), _AUGMENTED_PHOTOS, seed)
    cells = []
    for row, jpeg in enumerate(photos.read_jpegs(split, shown)):
        cells.append(photos.decode(jpeg))
        cells += [augment_photo(jpeg, row * _DRAWS + draw) for draw in range(_DRAWS)]
    columns = ["photo", *(f"draw {draw + 1}" for draw in range(_DRAWS))]
    return photos.sheet(
        cells,
        columns + [""] * (len(cells) - len(columns)),
        columns=len(columns),
        title="Augmentation, as the model sees it",
        row_titles=[class_names[int(label)] for label in split.known_labels[shown]],
    )


def augmented(
    jpeg: bytes,
    number: int,
    *,
    seed: int,
    decoder: decode.Decoder,
    image_size: int,
    augmentation: Augmentation,
) -> np.ndarray:
    """Returns a photo as the model gets it where it is the `number`-th example of a run.

    Args:
        jpeg: the photo.
        number: what its draws follow from, with the seed.
        seed: of the run.
        decoder: of training photos.
        image_size: side of what the model sees, pixels.
        augmentation: what may happen to it.

    Returns:
        `[image_size, image_size, 3]` uint8.
    """
    drawn = draws.draw(seed, number)
    image = apply.on_host(decoder(jpeg), drawn, image_size=image_size, augmentation=augmentation)
    return image.numpy()


def duplicate_sheet(
    table: pd.DataFrame, splits: Mapping[str, Split], kind: str = "duplicates"
) -> Figure:
    """Shows equal photos side by side, a group a row, those across splits first.

    Args:
        table: of `images.duplicates` or `images.near_copies`, not empty.
        splits: by name.
        kind: which of the two.
    """
    groups = [rows for _, rows in table.groupby("group")]
    groups.sort(key=lambda rows: rows["split"].nunique(), reverse=True)
    number_of_groups, groups = len(groups), groups[:_GROUPS_SHOWN]
    shown = [rows.head(_PHOTOS_OF_GROUP_SHOWN) for rows in groups]
    pixels = {}
    for name, rows in pd.concat(shown).groupby("split"):
        found = photos.read_photos(splits[name], rows["index"].to_list())
        pixels |= zip(rows.index, found, strict=True)
    columns = max(map(len, shown))
    cells, titles, row_titles = [], [], []
    for rows, all_rows in zip(shown, groups, strict=True):
        empty = columns - len(rows)
        cells += [pixels[place] for place in rows.index] + [None] * empty
        texts = rows["split"] + " " + rows["id"] + "\n" + rows["class"]
        titles += [*texts, *[""] * empty]
        part = f", {len(rows)} shown" if len(rows) < len(all_rows) else ""
        row_titles.append(f"group {all_rows['group'].iloc[0]}: {len(all_rows)} photos{part}")
    part = f", {len(groups)} shown" if len(groups) < number_of_groups else ""
    return photos.sheet(
        cells,
        titles,
        columns=columns,
        title=f"Groups of {_KINDS[kind]}: {number_of_groups:,}{part}",
        row_titles=row_titles,
    )
