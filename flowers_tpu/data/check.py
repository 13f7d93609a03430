"""What is wrong with a whole data set, and with what of it a run leaves out."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from flowers_tpu.data import records, verify
from flowers_tpu.data.shards import Shard, find_shards, oddities
from flowers_tpu.data.splits import Split, examine_shards
from flowers_tpu.data.verify import Problem, Record
from flowers_tpu.system.errors import RequestError, RunError

_BAD_RECORDS = ("split", "file", "record", "id", "problem")


class Report(NamedTuple):
    """The outcome of `check`.

    `summary` has a row per split: `split`, `shards`, `records`, `bad` (of them, cannot be used) and
    `duplicates` (records whose id or photo an earlier one has, in this split or another). `used`
    has the records of each split that can be used.
    """

    problems: list[str]
    summary: pd.DataFrame
    used: dict[str, list[Record]]


def check(folder: str, num_classes: int) -> Report:
    """Checks all splits: every record, with its photo decoded, and that no two are the same.

    Args:
        folder: of the data set.
        num_classes: labels are below it.
    """
    problems: list[str] = []
    rows, of_splits = [], {}
    first: dict[tuple[str, str | int], str] = {}
    for split in records.SPLITS:
        shards, contents, repeated = (), [], []
        try:
            shards = find_shards(folder, split)
            problems += oddities(folder, split)
            known = num_classes if split in records.LABELED_SPLITS else None
            contents = examine_shards(shards, split, known, decode=True)
        except RequestError as error:
            problems.append(str(error))
        for shard, content in zip(shards, contents, strict=False):
            problems += map(str, content.problems)
            for record in content.used:
                repeated += _repetitions(shard, record, first)
        problems += map(str, repeated)
        bad = sum(len(content.left_out) for content in contents)
        of_splits[split] = [record for content in contents for record in content.used]
        used = len(of_splits[split])
        duplicates = len({(problem.path, problem.record) for problem in repeated})
        rows.append((split, len(shards), used + bad, bad, duplicates))
    columns = ["split", "shards", "records", "bad", "duplicates"]
    return Report(problems, pd.DataFrame(rows, columns=columns), of_splits)


def new_problems(split: Split, num_classes: int) -> list[Problem]:
    """Decodes every photo of a split that was read before; returns what was not known of it."""
    shards = [Shard(shard.path, shard.image_size, shard.records) for shard in split.shards]
    known = None if split.labels is None or split.relabeled else num_classes
    contents = examine_shards(shards, split.name, known, decode=True)
    return [p for content in contents for p in content.problems if p not in split.problems]


@contextlib.contextmanager
def naming_bad_records(splits: Iterable[Split], num_classes: int) -> Iterator[None]:
    """Turns the error of a photo that cannot be decoded into one that says which it is."""
    try:
        yield
    except verify.ERRORS as error:
        for split in splits:
            if problems := new_problems(split, num_classes):
                raise RunError(
                    f"{problems[0]} (met on the way: the start reads headers only). Repair it "
                    "and run the same command again, or begin anew with --bad_records=skip"
                ) from error
        raise


def bad_records(splits: Iterable[Split], known: str = "") -> str:
    """Returns what is left out of splits, and why, as a CSV for people and programs.

    Args:
        splits: that were read now.
        known: an earlier such CSV, whose rows of other splits are kept.
    """
    rows = {
        split.name: [
            (split.name, os.path.basename(p.path), p.record, p.id, p.found) for p in split.problems
        ]
        for split in splits
    }
    if known:
        table = pd.read_csv(io.StringIO(known), dtype=str, keep_default_na=False)
        for name in set(table["split"]) - set(rows):
            rows[name] = list(table[table["split"] == name].itertuples(index=False))
    ordered = [row for name in records.SPLITS for row in rows.get(name, [])]
    return pd.DataFrame(ordered, columns=list(_BAD_RECORDS), dtype=object).to_csv(index=False)


def _repetitions(
    shard: Shard, record: Record, first: dict[tuple[str, str | int], str]
) -> Iterator[Problem]:
    """Yields in what a record repeats an earlier one; `first` keeps where each value was first."""
    for same, value in (
        ("its id is that", record.id),
        ("its photo is byte for byte that", record.fingerprint),
    ):
        problem = Problem(shard.path, shard.count, record.number, record.id, "")
        if (same, value) in first:
            yield dataclasses.replace(problem, found=f"{same} of {first[same, value]}")
        else:
            first[same, value] = f"{problem.place}, id {record.id}, of {shard.path}"
