"""Checks a whole data set before anything is trained on it.

    python scripts/check_data.py --data_dir=DATA --image_size=192

Reads every shard (checksums, and the counts in their names) and decodes every photo; checks sizes
and labels, and that no id and no photo (byte for byte) is there twice, within a split or across
splits: a training photo that is also a validation photo makes scores too good. Lists every problem
with file, record and id, then a table of the splits. Exit code 0 where nothing is wrong, else 2.
Only --data_dir, --image_size and --classes matter here. With --near_copies it also lists photos
that show the same, however they were saved:

    python scripts/check_data.py --data_dir=DATA --near_copies --output=copies.png
"""

import contextlib

import numpy as np

from flowers_tpu.data import check, classes, near_copies, records
from flowers_tpu.data.splits import read_split
from flowers_tpu.data.verify import Record
from flowers_tpu.reports import style
from flowers_tpu.reports.exploration import images, sheets
from flowers_tpu.reports.options import CheckOptions
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError

_LISTED = 100  # near-copies; all are in explore's near_copies.csv


def check_data(spec: Spec, own: CheckOptions) -> None:
    """Checks a whole data set and lists what is wrong with it: all that training would refuse.

    Raises:
        RequestError: something is.
    """
    options = spec.data
    folder = data_lib.folder_of(options)
    names = data_lib.class_names_of(options, folder)
    report = check.check(folder, len(names or classes.FLOWERS))
    problems = [*report.problems, *_other_problems(spec, folder, names, report.used)]
    for problem in problems:
        terminal.say(problem)
    terminal.say(f"\n{report.summary.to_string(index=False)}\n")
    if own.near_copies:
        _list_near_copies(folder, names or classes.FLOWERS, own.output)
    if problems:
        raise RequestError(f"--data_dir: {folder}: problems, listed above: {len(problems)}")
    terminal.say(f"{folder}: nothing is wrong.")


def _list_near_copies(folder: str, names: tuple[str, ...], output: str) -> None:
    """Lists, and draws, the photos that can be used and show the same."""
    found = []
    for name in records.SPLITS:
        # What cannot be read is among the problems already.
        with contextlib.suppress(RequestError):
            found.append(read_split(folder, name, len(names), bad_records="skip"))
    table = images.near_copies(found, names, near_copies.of_splits(found))
    columns = ["group", "split", "id", "class", "correlation", "mirrored"]
    if len(table):
        terminal.say(table[columns][:_LISTED].to_string(index=False, float_format="%.4f"))
    terminal.say(
        f"Near-copies: {images.groups_text(images.count_duplicates(table), 'near_copies')}.\n"
    )
    if output and len(table):
        by_name = {split.name: split for split in found}
        style.save(sheets.duplicate_sheet(table, by_name, "near_copies"), output)
        terminal.say(f"{output}: the photos side by side\n")


def _other_problems(
    spec: Spec, folder: str, names: tuple[str, ...] | None, used: dict[str, list[Record]]
) -> list[str]:
    """What is wrong with the names of the classes, and with the ids of the test photos."""
    found = []
    if names is not None and len(names) == 1:
        found.append(f"{folder}: has one class only, {names[0]!r}: nothing to tell apart")
    labels = np.array([record.label for record in used["train"]], np.int32)
    ids = np.array([record.id for record in used["test"]])
    try:
        if names is None and len(labels):
            data_lib.check_names_are_the_competitions(folder, labels)
    except RequestError as error:
        found.append(str(error))
    try:
        if len(ids):
            data_lib.compare_test_ids(spec.data, folder, ids)
    except RequestError as error:
        found.append(str(error))
    return found
