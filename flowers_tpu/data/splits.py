"""A split whose every record was read once and checked."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np

from flowers_tpu.data import records, verify
from flowers_tpu.data.shards import Shard, find_shards
from flowers_tpu.data.verify import Problem
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError

_SHARDS_READ_AT_ONCE = 8  # enough to hide the latency of a bucket


@dataclasses.dataclass(frozen=True)
class Split:
    """A split whose every record was read once: what is known of it without its photos.

    Attributes:
        name: `train`, `val` or `test`.
        shards: its files, in name order.
        ids: `[examples]` str, in file order.
        labels: `[examples]` int32 in file order, or None where the split has no labels.
        relabeled: whether labels are others than those in the records.
        problems: why records are left out; empty unless bad records are skipped.
        fingerprints: `[examples]` int64, of the bytes of their JPEGs; equal ones, equal photos.
        jpeg_sizes: `[examples]` int64, bytes.
    """

    name: str
    shards: tuple[Shard, ...]
    ids: np.ndarray
    labels: np.ndarray | None
    problems: tuple[Problem, ...] = ()
    # Empty only if nothing was read.
    fingerprints: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    jpeg_sizes: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    relabeled: bool = False

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.ids)

    @property
    def known_labels(self) -> np.ndarray:
        """The labels; raises ValueError if the split has none."""
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels")
        return self.labels

    @property
    def photo_size(self) -> int:
        """Side of the photos, pixels."""
        return self.shards[0].image_size

    @property
    def left_out(self) -> int:
        """The number of records that are no examples, as they cannot be used."""
        return sum(len(shard.left_out) for shard in self.shards)


def joined(name: str, parts: Sequence[Split]) -> Split:
    """Returns one split of the examples of several, which have labels and photos of one size.

    An id that several of them have becomes `val/ID` and the like, so that each is there once.
    """
    ids = np.concatenate([part.ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        ids = np.array([f"{part.name}/{name}" for part in parts for name in part.ids])
    return Split(
        name,
        shards=tuple(shard for part in parts for shard in part.shards),
        ids=ids,
        labels=np.concatenate([part.known_labels for part in parts]),
        problems=tuple(problem for part in parts for problem in part.problems),
        fingerprints=np.concatenate([part.fingerprints for part in parts]),
        jpeg_sizes=np.concatenate([part.jpeg_sizes for part in parts]),
        relabeled=any(part.relabeled for part in parts),
    )


def chosen(name: str, split: Split, wanted: np.ndarray, *, with_problems: bool = True) -> Split:
    """Returns a split of some examples of another, in the same order.

    Args:
        name: of the new split.
        split: the other.
        wanted: `[examples]` bool, in file order.
        with_problems: whether the records that cannot be used count as the new split's; of several
            that are chosen from one, one split should have them.
    """
    shards, begin = [], 0
    for shard in split.shards:
        some = shard.only(wanted[begin : begin + shard.count])
        begin += shard.count
        if not with_problems:
            passed_over = tuple(sorted([*some.left_out, *some.passed_over]))
            some = dataclasses.replace(some, left_out=(), passed_over=passed_over)
        shards.append(some)
    return dataclasses.replace(
        split,
        name=name,
        shards=tuple(shards),
        ids=split.ids[wanted],
        labels=None if split.labels is None else split.labels[wanted],
        problems=split.problems if with_problems else (),
        fingerprints=split.fingerprints[wanted],
        jpeg_sizes=split.jpeg_sizes[wanted],
    )


def read_split(
    folder: str,
    split: str,
    num_classes: int,
    *,
    bad_records: str = "fail",
    has_labels: bool | None = None,
) -> Split:
    """Reads every record of a split once and checks it.

    Shards are read in parallel, TFRecord checksums included. With `fail`, only the headers of the
    photos are read: about 10,000 photos of 512 px per second and core from a local disk. With
    `skip` every photo is decoded, so that none that cannot be is met later.

    Args:
        folder: of the data set.
        split: its name.
        num_classes: labels are below it.
        bad_records: `fail` or `skip`: what to do with records that cannot be used.
        has_labels: whether every record must have a label; None: as the competition has it, in
            `train` and `val`.

    Raises:
        RequestError: with `fail`, a shard is damaged or holds another number of records than its
            name says, or a record lacks a feature, has a label out of range or a photo of another
            size; the message names shard, record and id. With both, ids are not distinct, a file
            cannot be read, or no record can be used.
    """
    shards = find_shards(folder, split)
    has_labels = split in records.LABELED_SPLITS if has_labels is None else has_labels
    contents = examine_shards(
        shards,
        split,
        num_classes if has_labels else None,
        decode=bad_records == "skip",
    )
    problems = tuple(problem for content in contents for problem in content.problems)
    nothing_used = problems and not any(content.used for content in contents)
    if nothing_used and all(problem.found.startswith(verify.UNLABELED) for problem in problems):
        raise RequestError(
            f"{problems[0].path}: its records have no labels (the feature `class`), so nothing "
            f"can be learned from {split} or scored with it"
        )
    if problems and bad_records == "fail":
        raise RequestError(
            f"{problems[0]} (problems in {split}: {len(problems)}; scripts/check_data.py lists "
            "them, --bad_records=skip leaves bad records out)"
        )
    shards = tuple(
        dataclasses.replace(shard, count=len(content.used), left_out=content.left_out)
        for shard, content in zip(shards, contents, strict=True)
    )
    used = [record for content in contents for record in content.used]
    if not used:
        raise RequestError(f"{problems[0]}; no record of {split} can be used")
    ids = np.array([record.id for record in used])
    _check_ids(ids, shards)
    labels = np.array([record.label for record in used], np.int32)
    return Split(
        split,
        shards,
        ids,
        labels if has_labels else None,
        problems,
        fingerprints=np.array([record.fingerprint for record in used], np.int64),
        jpeg_sizes=np.array([record.jpeg_size for record in used], np.int64),
    )


def examine_shards(
    shards: Sequence[Shard], split: str, num_classes: int | None, *, decode: bool
) -> list[verify.Contents]:
    """Examines shards of a split in parallel; see `verify.examine`."""

    def examine(shard: Shard) -> verify.Contents:
        return verify.examine(
            shard.path,
            image_size=shard.image_size,
            count=shard.count,
            num_classes=num_classes,
            decode=decode,
        )

    contents = []
    with (
        concurrent.futures.ThreadPoolExecutor(_SHARDS_READ_AT_ONCE) as pool,
        terminal.bar(sum(shard.count for shard in shards), f"checking {split}") as bar,
    ):
        for shard, content in zip(shards, pool.map(examine, shards), strict=True):
            contents.append(content)
            bar.update(shard.count)
    return contents


def _check_ids(ids: np.ndarray, shards: Sequence[Shard]) -> None:
    """Ids are how a prediction is told from another, so each must be there once."""
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    repeated = first[counts > 1]
    if len(repeated):
        example_id = ids[repeated[0]]
        ends = np.cumsum([shard.count for shard in shards])
        places = np.flatnonzero(ids == example_id)[:2]
        where = " and ".join(shards[np.searchsorted(ends, p, side="right")].path for p in places)
        raise RequestError(
            f"id {example_id} stands in more than one record ({where}); ids must be distinct "
            f"({len(repeated)} ids are not)"
        )
