"""The data set of a run: found, read and checked, and known again when the run goes on."""

import dataclasses
import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from flowers_tpu.data import check, choosing, classes, fingerprints, records, shards
from flowers_tpu.data import splits as splits_lib
from flowers_tpu.data.options import DataOptions
from flowers_tpu.data.splits import Split
from flowers_tpu.evaluation import submission
from flowers_tpu.example_data import example
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.errors import RequestError

TEST_PHOTOS = "test_photos_in_training"  # in what a run keeps of its data, and in its scores


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, read and checked.

    Attributes:
        folder: holds `train/`, `val/` and `test/`.
        class_names: by label; of a run that is trained those it was trained with.
        splits: by name; no `val` if nothing validates.
        further: what became of the photos of other data sets, see `choosing.Choice`; empty if there
            are none.
        test_photos: how many training photos are photos of the test split.
    """

    folder: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    further: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    test_photos: int = 0

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def folder_of(options: DataOptions) -> str:
    """Returns the folder that holds the splits, drawing the example if that is asked for."""
    if options.data_dir == "example":
        return example.example_data_dir(options.image_size)
    return shards.data_folder(options.data_dir, options.image_size)


def beside(options: DataOptions, folder: str, name: str) -> str | None:
    """Returns the path of a file of a data set; None if there is none.

    It may lie in the folder of the splits or, as the competition's, next to the
    `tfrecords-jpeg-SxS/` folders.
    """
    places = [folder] if options.data_dir == "example" else [folder, options.data_dir]
    found = (files.join(place, name) for place in places)
    return next((path for path in found if files.exists(path)), None)


def class_names_of(options: DataOptions, folder: str) -> tuple[str, ...] | None:
    """Returns the names of the classes, by label; None if neither flag nor data say them."""
    path = options.classes or beside(options, folder, "classes.txt")
    return classes.read_classes(path) if path else None


def load(
    options: DataOptions,
    names: tuple[str, ...] = records.SPLITS,
    trained_names: tuple[str, ...] | None = None,
    *,
    have_labels: bool | None = None,
) -> Data:
    """Finds and checks a data set, or some of its splits.

    Args:
        options: which data set.
        names: of the splits.
        trained_names: classes of a run that is trained: those of the data are mapped to them by
            name, and may be some of them in any order.
        have_labels: whether all of these splits must; None: `train` and `val` must.

    Raises:
        RequestError: something is wrong with the data, or they have another class.
    """
    if options.chooses and not {"train", "val"}.isdisjoint(names):
        return _chosen(options, names, trained_names)
    folder = folder_of(options)
    own_names = class_names_of(options, folder)
    known = own_names or trained_names or classes.FLOWERS
    read = functools.partial(
        splits_lib.read_split,
        folder,
        num_classes=len(known),
        bad_records=options.bad_records,
        has_labels=have_labels,
    )
    found = {name: read(name) for name in names}
    for name, split in found.items():
        if split.left_out:
            terminal.say(f"{name}: {split.left_out:,} bad records are left out")
        for oddity in shards.oddities(folder, name):
            logging.warning("%s", oddity)
    size = next(iter(found.values())).photo_size
    for flag in ("image_size", "eval_image_size"):
        if size < (wanted := getattr(options, flag)):
            logging.warning(
                "--%s=%d: the photos of %s have %d px, and are enlarged",
                *(flag, wanted, folder, size),
            )
    if own_names is None and trained_names is None and "train" in found:
        check_names_are_the_competitions(folder, found["train"].known_labels)
    if "test" in found:
        _check_test_ids(options, folder, found["test"])
    if trained_names is None:
        return Data(folder, known, found)
    mapped = {name: _mapped(split, known, trained_names, folder) for name, split in found.items()}
    return Data(folder, trained_names, mapped)


def _chosen(
    options: DataOptions, names: tuple[str, ...], trained_names: tuple[str, ...] | None
) -> Data:
    """Loads a data set of which flags say what trains and what validates."""
    plain = dataclasses.replace(options, folds=0, fold=0, train_splits="train", extra_data_dirs="")
    has_test = files.is_dir(files.join(folder_of(options), "test"))
    data = load(plain, records.SPLITS if has_test else records.LABELED_SPLITS, trained_names)
    try:
        further = [
            _further(dataclasses.replace(plain, data_dir=place, classes=""), name, data)
            for place, name in zip(options.further, _short_names(options.further), strict=True)
        ]
    except RequestError as error:
        message = str(error).replace("--data_dir", "--extra_data_dirs")
        raise RequestError(message) from error
    with check.naming_bad_records(
        [*data.splits.values(), *(one.split for one in further)], data.num_classes
    ):
        choice = choosing.choose(options, data.class_names, data.splits, further)
    _tell(choice)
    made = {**choice.splits, **({"test": data.splits["test"]} if has_test else {})}
    splits = {name: made[name] for name in names if name in made}
    return dataclasses.replace(
        data, splits=splits, further=choice.further, test_photos=choice.test_photos
    )


def _short_names(places: Sequence[str]) -> list[str]:
    """The last parts of paths; with their number if they are not all different."""
    names = [os.path.basename(place.rstrip("/")) for place in places]
    if len(set(names)) < len(names):
        return [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return names


def _further(options: DataOptions, name: str, data: Data) -> choosing.Further:
    """Reads the labeled photos of another data set.

    Raises:
        RequestError: there are none, their names are not known, or they have another size.
    """
    flag = f"--data_dir: {options.data_dir}"
    folder = folder_of(options)
    names = class_names_of(options, folder)
    if names is None:
        raise RequestError(
            f"{flag}: has no classes.txt, so nobody knows what its labels mean; write the names of "
            "its classes there, one a line"
        )
    there = [name for name in records.LABELED_SPLITS if files.is_dir(files.join(folder, name))]
    if not there:
        raise RequestError(f"{flag}: has neither train/ nor val/ with labeled photos")
    size = data.splits["train"].photo_size
    parts = [
        splits_lib.read_split(folder, part, len(names), bad_records=options.bad_records)
        for part in there
    ]
    if found := [part.photo_size for part in parts if part.photo_size != size]:
        raise RequestError(
            f"{flag}: has photos of {found[0]} px, but the data have {size} px; convert them to "
            f"that size by scripts/make_tfrecords.py --sizes={size}"
        )
    split = splits_lib.joined(name, parts)
    own = np.array(names)[split.labels]
    labels = {_plain(name): label for label, name in enumerate(data.class_names)}
    table = np.array([labels.get(_plain(name), -1) for name in names], np.int32)
    return choosing.Further(
        options.data_dir,
        dataclasses.replace(
            split,
            labels=table[split.labels],
            relabeled=True,
            ids=np.array([f"{name}/{of_photo}" for of_photo in split.ids]),
        ),
        own,
        pseudo_labeled=folders.belongs_to(folder, folders.PSEUDO_LABELED),
    )


def _plain(name: str) -> str:
    """The name of a class, however it is written: `Water_Lily` is `water lily`."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def _tell(choice: choosing.Choice) -> None:
    """Says what trains, and why other photos do not."""
    for folder, rows in choice.further.groupby("folder", sort=False) if len(choice.further) else ():
        reasons = ", ".join(
            f"{rows[name].sum():,} {text}"
            for name, text in choosing.REASONS.items()
            if rows[name].sum()
        )
        terminal.say(
            f"{folder}: {rows['taken'].sum():,} of {rows['photos'].sum():,} photos train"
            + (f"; left out: {reasons}" if reasons else "")
        )
    if choice.left_out:
        terminal.say(
            f"train: {choice.left_out:,} photos are left out, as they are near-copies of "
            "validation or test photos"
        )
    if choice.test_photos:
        logging.warning(
            "%d photos of the test split train, by labels that a model gave them: scores say so",
            choice.test_photos,
        )


def check_names_are_the_competitions(folder: str, labels: np.ndarray) -> None:
    """Refuses to call classes by the competition's names if there are fewer of them.

    Args:
        folder: of the data set, for messages.
        labels: of its training photos.

    Raises:
        RequestError: they are other labels than the competition's.
    """
    last, expected = int(labels.max()), len(classes.FLOWERS) - 1
    if last != expected:
        raise RequestError(
            f"--data_dir: {folder}: has no classes.txt, and its labels are 0 to {last}, not the "
            f"competition's 0 to {expected}; give the names of its classes, one a line, by "
            "--classes=FILE or as classes.txt in the folder"
        )
    terminal.note(f"{folder}: has no classes.txt; the names are the competition's")


def record_of(data: Data) -> dict[str, Any]:
    """Returns what a run keeps of its data, to know them again."""
    return {
        "class_names": list(data.class_names),
        TEST_PHOTOS: data.test_photos,
        "splits": {
            name: {
                "photos": split.size,
                "photo_size": split.photo_size,
                "content": fingerprints.content(split, data.class_names),
                "order": fingerprints.order(split),
            }
            for name, split in data.splits.items()
        },
    }


def check_unchanged(record: dict[str, Any], data: Data, data_dir: str) -> None:
    """Refuses to continue a run with other data than it began with; they may have moved.

    Args:
        record: what `record_of` gave when the run began.
        data: as they are now.
        data_dir: for messages.

    Raises:
        RequestError: names the first difference.
    """
    if problem := _difference(record, record_of(data)):
        raise RequestError(
            f"--data_dir={data_dir}: {problem}; with other data the run would become another. "
            "Give the data it began with, choose another --run_dir, or begin anew with --overwrite"
        )


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first difference between two records, in words; '' if there is none."""
    old, new = before["class_names"], now["class_names"]
    if len(old) != len(new):
        return f"has {len(new)} classes, but the run began with {len(old)}"
    for label, (name_before, name) in enumerate(zip(old, new, strict=True)):
        if name_before != name:
            return f"class {label} is {name!r}, but was {name_before!r} when the run began"
    for name, split in now["splits"].items():
        was = before["splits"][name]
        if split["photos"] != was["photos"]:
            return (
                f"{name} has {split['photos']:,} photos, but the run began with {was['photos']:,}"
            )
        if split["content"] != was["content"]:
            return f"{name} holds other photos or labels than when the run began"
        if split["order"] != was["order"]:
            return f"{name} has other shards, or another order in them, than when the run began"
    return ""


def _mapped(split: Split, own: tuple[str, ...], trained: tuple[str, ...], folder: str) -> Split:
    """Gives the photos of a split the labels that a run has for classes of their names."""
    if split.labels is None or own == trained:
        return split
    labels = {name: label for label, name in enumerate(trained)}
    table = np.array([labels.get(name, -1) for name in own], np.int32)
    if (unknown := np.flatnonzero(table[split.labels] < 0)).size:
        name = own[split.labels[unknown[0]]]
        raise RequestError(
            f"--data_dir: {folder}: {split.name} has photos of {name!r} (label "
            f"{split.labels[unknown[0]]}), a class that the run does not know: it was trained on "
            f"{', '.join(trained[:5])}{', …' if len(trained) > 5 else ''}. Give photos of its own "
            "classes, or their names by --classes"
        )
    return dataclasses.replace(split, labels=table[split.labels], relabeled=True)


def compare_test_ids(options: DataOptions, folder: str, ids: np.ndarray) -> None:
    """Compares the ids of the test photos with those that a submission must have.

    Raises:
        RequestError: they are others.
    """
    path = beside(options, folder, "sample_submission.csv")
    if path:
        submission.check_ids(path, ids)
    else:
        terminal.note(f"{folder}: no sample_submission.csv to compare the test photos' ids with")


def _check_test_ids(options: DataOptions, folder: str, split: Split) -> None:
    try:
        compare_test_ids(options, folder, split.ids)
    except RequestError as error:
        if not split.left_out:
            raise
        logging.warning("%s; without the records left out the submission is incomplete", error)
