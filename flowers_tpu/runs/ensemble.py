"""Runs put together: their outputs of the same photos averaged, or those of folds gathered."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flowers_tpu.data import records
from flowers_tpu.evaluation import ensembles, intervals
from flowers_tpu.evaluation.outputs import Outputs
from flowers_tpu.runs.folder import RunFolder, outputs_file, run_at
from flowers_tpu.system import files, folders
from flowers_tpu.system.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Member:
    """A run of an ensemble.

    Attributes:
        path: as it was given: of the run, or of its results elsewhere.
        run: path of the run.
        outputs: by split.
    """

    path: str
    run: str
    outputs: dict[str, Outputs]


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """What runs come to together.

    Attributes:
        outputs: by split: `test`; `val`, if the runs validate; and `train` if all were trained on
            the same photos and none of them is validated. The logits are logarithms of
            probabilities.
        about: how it came to be: weights, and scores of the members; for `ensemble.json`.
    """

    outputs: dict[str, Outputs]
    about: dict[str, Any]


def read_member(path: str) -> Member:
    """Reads what a run gave for its photos.

    Args:
        path: of its folder, or of its results in an `--output_dir`.

    Raises:
        RequestError: there is no run, it lacks outputs, or some are not finite.
    """
    if folders.belongs_to(path, folders.RESULTS):
        folder = RunFolder(path)
        run = folder.read_json(folders.RESULTS.marker)["run"]
    else:
        folder, run = run_at(path), path
    validates = RunFolder(run).read_specs()[0].data.validates
    names = [name for name in records.SPLITS if validates or name != "val"]
    lacking = [name for name in names if not folder.has(outputs_file(name))]
    if lacking:
        where = "" if run == path else f" --output_dir={path}"
        commands = [
            f"scripts/{command}.py --run_dir={run}{where}"
            for command, names in (("evaluate", records.LABELED_SPLITS), ("predict", ("test",)))
            if set(names) & set(lacking)
        ]
        raise RequestError(
            f"{path}: has no {outputs_file(lacking[0])}, which earlier versions did not write and "
            f"runs that have not ended lack; {' and '.join(commands)} makes it"
        )
    outputs = {
        name: Outputs.from_bytes(files.read_bytes(folder.file(outputs_file(name))))
        for name in names
    }
    for name, of_split in outputs.items():
        bad = np.flatnonzero(~np.isfinite(of_split.logits).all(axis=1))
        if len(bad):
            raise RequestError(
                f"{folder.file(outputs_file(name))}: photo {of_split.ids[bad[0]]} has outputs that "
                "are not finite, which spoil a mean; leave the run out"
            )
    return Member(path, run, outputs)


def gather(members: Sequence[Member], *, search: bool) -> Ensemble:
    """Averages the probabilities of runs; each photo counts once.

    Runs that validate on the same photos are averaged. Runs that validate on different ones are
    folds: each photo is predicted by those runs that did not see it, and the test photos by all.

    Args:
        members: two or more.
        search: weights are fitted on validation, whose outputs are then those by weights that were
            fitted without the photo; otherwise they are equal.

    Raises:
        RequestError: classes or photos do not fit, or a run was trained on validation photos.
    """
    members = list(_with_equal_classes(members))
    keys = _Keys(members)
    lacking = [member for member in members if "val" not in member.outputs]
    if lacking and (search or len(lacking) < len(members)):
        what = "--weights=search" if search else "the other runs validate"
        raise RequestError(
            f"{lacking[0].path}: has no validation photos (--train_splits=train,val), but "
            f"{what}: average runs without them among themselves, with equal weights"
        )
    _check_same_test_photos(members, keys)
    groups = [members] if lacking else _groups(members, keys)
    if search and len(groups) > 1:
        raise RequestError(
            f"--weights=search: the runs are {len(groups)} folds, each validated on photos of its "
            "own, so there are none to compare all of them on; give --weights=equal"
        )
    weights = np.full(len(members), 1 / len(members))
    outputs = {}
    if search:
        aligned = _aligned(members, "val", keys)
        if len(np.unique(keys.of(aligned[0]))) < 2:
            raise RequestError(
                "--weights=search: there is one validation photo only, so weights cannot be fitted "
                "on others than they are scored on; give --weights=equal"
            )
        fitted = ensembles.cross_fit(
            np.stack([outputs.logits for outputs in aligned]),
            *(aligned[0].known_labels, keys.of(aligned[0])),
        )
        weights = fitted.weights
        outputs["val"] = dataclasses.replace(aligned[0], logits=fitted.log_p)
    elif not lacking:
        outputs["val"] = _concatenated(
            [_averaged(group, "val", keys, np.full(len(group), 1 / len(group))) for group in groups]
        )
    outputs["test"] = _averaged(members, "test", keys, weights)
    first = keys.sorted(members[0], "train")
    if len(groups) == 1 and all(np.array_equal(first, keys.sorted(m, "train")) for m in members):
        outputs["train"] = _averaged(members, "train", keys, weights)
    about = {
        "runs": [
            {"run": member.path, "weight": float(weight), **_scores_of(member)}
            for member, weight in zip(members, weights, strict=True)
        ],
        "weights": "search" if search else "equal",
        "folds": len(groups) if len(groups) > 1 else None,
        "photos_known_by": "ids" if keys.by_ids else "fingerprints",
    }
    if len(groups) == 1 and not lacking:
        about |= _gain(outputs["val"], _aligned(members, "val", keys))
    return Ensemble(outputs, about)


class _Keys:
    """What tells photos apart over runs: their bytes; if these are of other sizes, their ids."""

    def __init__(self, members: Sequence[Member]):
        sizes = {outputs.photo_size for member in members for outputs in member.outputs.values()}
        self.by_ids = len(sizes) > 1
        for member in members if self.by_ids else ():
            for name, outputs in member.outputs.items():
                ids, counts = np.unique(outputs.ids, return_counts=True)
                if (counts > 1).any():
                    raise RequestError(
                        f"{member.path}: the runs have photos of {len(sizes)} sizes, which are "
                        f"known by their ids, but {name} has {counts.max()} photos of the id "
                        f"{ids[counts.argmax()]!r}; give runs of one --image_size"
                    )

    def of(self, outputs: Outputs) -> np.ndarray:
        """The key of each photo."""
        return outputs.ids if self.by_ids else outputs.fingerprints

    def sorted(self, member: Member, split: str) -> np.ndarray:
        """The keys of a split, sorted."""
        return np.sort(self.of(member.outputs[split]))

    def order(self, outputs: Outputs) -> np.ndarray:
        """The places of the photos in an order that is the same for the same photos."""
        labels = np.zeros(len(outputs.ids)) if outputs.labels is None else outputs.labels
        return np.lexsort((outputs.ids, labels, self.of(outputs)))


def _with_equal_classes(members: Sequence[Member]) -> Iterator[Member]:
    """Gives all members the order of the first one's classes."""
    wanted = members[0].outputs["test"].class_names
    for member in members:
        outputs = {}
        for name, of_split in member.outputs.items():
            if other := set(of_split.class_names) ^ set(wanted):
                raise RequestError(
                    f"{member.path}: has other classes ({len(of_split.class_names)}) than "
                    f"{members[0].path} ({len(wanted)}): only one of them has "
                    f"{', '.join(sorted(other)[:3])}; give runs of the same classes"
                )
            outputs[name] = of_split.with_classes(wanted)
        yield dataclasses.replace(member, outputs=outputs)


def _groups(members: Sequence[Member], keys: _Keys) -> list[list[Member]]:
    """Members by the photos they validate on, which nobody of a group was trained on."""
    groups: list[list[Member]] = []
    for member in members:
        own = keys.sorted(member, "val")
        for group in groups:
            others = keys.sorted(group[0], "val")
            if np.array_equal(own, others):
                group.append(member)
                break
            if len(np.intersect1d(own, others)):
                raise RequestError(
                    f"{_others(group[0], member, 'val', keys)}, but share some: neither the same "
                    "photos nor folds"
                )
        else:
            groups.append([member])
    for group in groups:
        for member in group:
            _check_unseen(member, groups, keys)
    return groups


def _check_same_test_photos(members: Sequence[Member], keys: _Keys) -> None:
    first = members[0]
    for member in members[1:]:
        if not np.array_equal(keys.sorted(first, "test"), keys.sorted(member, "test")):
            raise RequestError(_others(first, member, "test", keys))


def _check_unseen(member: Member, groups: Sequence[list[Member]], keys: _Keys) -> None:
    """Raises RequestError if a run was trained on its validation, or knows not the other folds."""
    train, val = keys.sorted(member, "train"), keys.sorted(member, "val")
    seen = np.intersect1d(train, val)
    if len(seen):
        raise RequestError(
            f"{member.path}: {len(seen):,} of its {len(val):,} validation photos are among its "
            "training photos, so their scores would say nothing; scripts/check_data.py lists them"
        )
    known = np.union1d(train, val)
    for group in groups:
        others = keys.sorted(group[0], "val")
        strange = np.setdiff1d(others, known)
        # Some may be left out of training as near-copies of test photos.
        if len(strange) > len(others) / 2:
            raise RequestError(
                f"{_others(group[0], member, 'val', keys)}, and {len(strange):,} of the first are "
                "no photos of the second at all: they are not folds of one data set. Give runs on "
                "the same data"
            )


def _others(first: Member, second: Member, split: str, keys: _Keys) -> str:
    one, other = keys.sorted(first, split), keys.sorted(second, split)
    return (
        f"{first.path} and {second.path}: have different photos in {split} ({len(one):,} and "
        f"{len(other):,}, {len(np.intersect1d(one, other)):,} in common, by their "
        f"{'ids' if keys.by_ids else 'fingerprints'})"
    )


def _aligned(members: Sequence[Member], split: str, keys: _Keys) -> list[Outputs]:
    """The outputs of a split, each in the first member's order of photos."""
    first = members[0].outputs[split]
    places = keys.order(first)
    aligned = []
    for member in members:
        rows = np.empty(len(places), int)
        rows[places] = keys.order(member.outputs[split])
        outputs = member.outputs[split].taken(rows)
        if split != "test" and (wrong := np.flatnonzero(outputs.labels != first.labels)).size:
            names, at = first.class_names, wrong[0]
            raise RequestError(
                f"{member.path}: photo {outputs.ids[at]} of {split} is of the class "
                f"{names[outputs.known_labels[at]]!r}, in {members[0].path} of "
                f"{names[first.known_labels[at]]!r}; give runs on the same data"
            )
        aligned.append(outputs)
    return aligned


def _averaged(members: Sequence[Member], split: str, keys: _Keys, weights: np.ndarray) -> Outputs:
    aligned = _aligned(members, split, keys)
    logits = ensembles.average(np.stack([outputs.logits for outputs in aligned]), weights)
    return dataclasses.replace(aligned[0], logits=logits)


def _concatenated(parts: Sequence[Outputs]) -> Outputs:
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("logits", "ids", "fingerprints", "labels")
    }
    # All folds come from the same records, of which each run leaves out the same ones.
    return dataclasses.replace(parts[0], **joined, left_out=max(part.left_out for part in parts))


def _scores_of(member: Member) -> dict[str, float]:
    """Its scores of validation; none if it does not validate."""
    if (val := member.outputs.get("val")) is None:
        return {}
    predicted = val.logits.argmax(axis=1)
    return {
        "val_macro_f1": intervals.macro_f1(val.known_labels, predicted),
        "val_accuracy": float((predicted == val.labels).mean()),
    }


def _gain(val: Outputs, members: Sequence[Outputs]) -> dict[str, float]:
    """What the ensemble gains over its best member in macro F1 of validation."""
    scores = [intervals.macro_f1(val.known_labels, m.logits.argmax(axis=1)) for m in members]
    best = members[int(np.argmax(scores))].logits.argmax(axis=1)
    predicted = val.logits.argmax(axis=1)
    low, high = intervals.macro_f1_gain_interval(val.known_labels, predicted, best)
    gain = intervals.macro_f1(val.known_labels, predicted) - max(scores)
    return {"gain_over_best": gain, "gain_low": low, "gain_high": high}
