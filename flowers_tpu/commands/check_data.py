"""Checks a whole data set before anything is trained on it.

    python scripts/check_data.py --data_dir=DATA --image_size=192

Reads every shard (checksums, and the counts in their names) and decodes every photo; checks sizes
and labels, and that no id and no photo (byte for byte) is there twice, within a split or across
splits: a training photo that is also a validation photo makes scores too good. Lists every problem
with file, record and id, then a table of the splits. Exit code 0 where nothing is wrong, else 2.
Only --data_dir, --image_size and --classes matter here.
"""

import numpy as np

from flowers_tpu.data import check, classes
from flowers_tpu.data.verify import Record
from flowers_tpu.runs import data as data_lib
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import terminal
from flowers_tpu.system.errors import RequestError


def check_data(spec: Spec) -> None:
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
    if problems:
        raise RequestError(f"--data_dir: {folder}: problems, listed above: {len(problems)}")
    terminal.say(f"{folder}: nothing is wrong.")


def _other_problems(
    spec: Spec, folder: str, names: tuple[str, ...] | None, used: dict[str, list[Record]]
) -> list[str]:
    """What is wrong with the names of the classes, and with the ids of the test photos."""
    found = []
    if names is not None and len(names) < 2:
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
