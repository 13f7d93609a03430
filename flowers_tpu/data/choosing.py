"""Which photos train and which validate: folds, all, further ones; and what may not train."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from flowers_tpu.data import near_copies
from flowers_tpu.data.options import DataOptions
from flowers_tpu.data.splits import Split, chosen, joined
from flowers_tpu.system.errors import RequestError

# Why a further photo does not train, in the order in which it is looked at.
REASONS = {
    "other_class": "of other classes",
    "copy_of_val": "copies of validation photos",
    "copy_of_test": "copies of test photos",
    "copy_of_train": "that train already",
}


@dataclasses.dataclass(frozen=True)
class Further:
    """Labeled photos of another data set.

    Attributes:
        folder: as it was given.
        split: all of them, with labels of the run; -1 for a class that it does not know.
        own_classes: `[photos]` str, how they are called there.
        pseudo_labeled: whether a model gave the labels, so that test photos may be among them.
    """

    folder: str
    split: Split
    own_classes: np.ndarray
    pseudo_labeled: bool = False


@dataclasses.dataclass(frozen=True)
class Choice:
    """What trains and what validates.

    Attributes:
        splits: `train`, and `val` if anything validates.
        further: a row per folder and class: `folder`, `its_class`, `class` ('' if the run has none
            such), `photos`, `taken`, and why others were left out: `other_class`,
            `copy_of_val`, `copy_of_test`, `copy_of_train` (byte for byte).
        left_out: training photos of the data set itself that are near-copies of validation or
            test photos.
        test_photos: training photos that are photos of the test split, byte for byte.
    """

    splits: dict[str, Split]
    further: pd.DataFrame
    left_out: int
    test_photos: int


def choose(
    options: DataOptions,
    class_names: tuple[str, ...],
    splits: dict[str, Split],
    further: Sequence[Further],
) -> Choice:
    """Chooses among the photos of a data set, and further ones, which train and which validate.

    Near-copies are one group, which is never divided: a fold has all of it. Of what trains, those
    that are near-copies of a validation or test photo are left out, of the data set itself only if
    it is cut into folds. With `allow_near_copies` that goes for photos that are the same byte for
    byte alone.

    Args:
        options: how.
        class_names: of the run.
        splits: `train` and `val`; and `test`, if it is there.
        further: photos of other data sets.

    Raises:
        RequestError: a class has fewer groups of photos than there are folds, or nothing is left.
    """
    parts = [splits["train"], splits["val"], *(one.split for one in further)]
    if "test" in splits:
        parts.append(splits["test"])
    ends = np.cumsum([part.size for part in parts])
    places = [np.arange(end - part.size, end) for part, end in zip(parts, ends, strict=True)]
    fingerprints = np.concatenate([part.fingerprints for part in parts])
    pairs = _equal(fingerprints)
    if (options.folds or further) and not options.allow_near_copies:
        pairs += [pair[:2] for pair in near_copies.of_splits(parts)]
    role = _roles(options, splits, places, pairs)
    copies = _copies_of(pairs, fingerprints, role)

    own = np.concatenate(places[:2])
    keep = role == "train"
    if options.folds:
        keep[own] &= ~copies["val"][own] & ~copies["test"][own]
    left_out = int((role[own] == "train").sum() - keep[own].sum())
    rows: list[dict] = []
    seen = set(fingerprints[own][keep[own]].tolist())
    for one, place in zip(further, places[2:], strict=False):
        reasons = _reasons(one, {name: of[place] for name, of in copies.items()}, seen)
        keep[place] &= reasons == ""
        rows += _rows(one, reasons, class_names)

    def of(wanted: np.ndarray, count: int, **how: bool) -> list[Split]:
        """Those of the first parts that are wanted."""
        taken = [
            chosen(part.name, part, wanted[place], **how)
            for part, place in zip(parts[:count], places, strict=False)
        ]
        return [split for split in taken if split.size]

    made = {"train": joined("train", of(keep, 2 + len(further)))}
    if options.validates:
        # What is bad in photos that are cut into folds counts with those that train.
        made["val"] = joined("val", of(role == "val", 2, with_problems=not options.folds))
    test_photos = 0
    if "test" in splits:
        test_photos = int(np.isin(made["train"].fingerprints, splits["test"].fingerprints).sum())
    return Choice(made, pd.DataFrame(rows), left_out, test_photos)


def _roles(
    options: DataOptions,
    splits: dict[str, Split],
    places: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
) -> np.ndarray:
    """What each photo is there for, `[photos]` str: `train`, `val` or `test`.

    Args:
        options: how.
        splits: see `choose`.
        places: among all, of the photos of training, validation, further ones, and last of the test
            split if it is there.
        pairs: of photos that stay together.
    """
    role = np.full(sum(map(len, places)), "train", "<U5")
    role[places[1]] = "val"
    if "test" in splits:
        role[places[-1]] = "test"
    own = np.concatenate(places[:2])
    if options.folds:
        inside = [pair for pair in pairs if max(pair) < len(own)]
        groups = near_copies.groups(len(own), inside)
        fold = folds_of(joined("train", [splits["train"], splits["val"]]), groups, options)
        role[own] = np.where(fold == options.fold, "val", "train")
    elif not options.validates:
        role[own] = "train"
    return role


def folds_of(pool: Split, groups: np.ndarray, options: DataOptions) -> np.ndarray:
    """Returns for each photo in which fold it is, `[photos]`; the photos tell, not their places.

    Args:
        pool: the photos that are cut.
        groups: `[photos]`: those of one number stay together.
        options: how many folds, and the seed.

    Raises:
        RequestError: there are fewer photos of each class than folds.
    """
    order = np.lexsort((pool.ids, pool.fingerprints))
    splitter = StratifiedGroupKFold(options.folds, shuffle=True, random_state=options.fold_seed)
    labels, numbers = pool.known_labels[order], pd.factorize(groups[order])[0]
    fold = np.empty(pool.size, np.int64)
    try:
        with warnings.catch_warnings():  # of classes with fewer photos than folds: some lack them
            warnings.simplefilter("ignore", UserWarning)
            for number, (_, validating) in enumerate(splitter.split(labels, labels, numbers)):
                fold[order[validating]] = number
    except ValueError as error:
        raise RequestError(
            f"--folds={options.folds}: every class has fewer photos than that; use fewer folds"
        ) from error
    return fold


def _equal(fingerprints: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that join photos that are the same byte for byte."""
    order = np.argsort(fingerprints, kind="stable")
    same = np.flatnonzero(fingerprints[order[1:]] == fingerprints[order[:-1]])
    return list(zip(order[same].tolist(), order[same + 1].tolist(), strict=True))


def _copies_of(
    pairs: Sequence[tuple[int, int]], fingerprints: np.ndarray, role: np.ndarray
) -> dict[str, np.ndarray]:
    """For `val` and `test`, which photos are copies of one of theirs, `[photos]` bool."""
    both = np.array([*pairs, *(pair[::-1] for pair in pairs)], np.int64).reshape(-1, 2)
    found = {}
    for name in ("val", "test"):
        # Of more than two that are the same, pairs join each with the next one only.
        found[name] = np.isin(fingerprints, fingerprints[role == name])
        found[name][both[role[both[:, 1]] == name, 0]] = True
    return found


def _reasons(further: Further, copies: dict[str, np.ndarray], seen: set[int]) -> np.ndarray:
    """Why each photo does not train, `[photos]` str: one of `REASONS`, or ''.

    Args:
        further: the photos.
        copies: of which of them there are others, see `_copies_of`.
        seen: fingerprints of photos that train; those of the photos that do are added.
    """
    reasons = np.full(further.split.size, "", object)
    for n, (label, fingerprint) in enumerate(
        zip(further.split.known_labels.tolist(), further.split.fingerprints.tolist(), strict=True)
    ):
        holds = (
            label < 0,
            copies["val"][n],
            copies["test"][n] and not further.pseudo_labeled,
            fingerprint in seen,
        )
        reasons[n] = next((r for r, is_so in zip(REASONS, holds, strict=True) if is_so), "")
        if not reasons[n]:
            seen.add(fingerprint)
    return reasons


def _rows(
    further: Further, reasons: np.ndarray, class_names: tuple[str, ...]
) -> Iterator[dict[str, object]]:
    for name in sorted(set(further.own_classes)):
        here = further.own_classes == name
        label = int(further.split.known_labels[here][0])
        yield {
            "folder": further.folder,
            "its_class": name,
            "class": class_names[label] if label >= 0 else "",
            "photos": int(here.sum()),
            "taken": int((reasons[here] == "").sum()),
            **{reason: int((reasons[here] == reason).sum()) for reason in REASONS},
        }
