"""Checks a whole data set before anything is trained on it.

    python scripts/check_data.py --data_dir=DATA --image_size=192

Reads every shard (checksums, and the counts in their names) and decodes every photo; checks sizes
and labels, and that no id and no photo (byte for byte) is there twice, within a split or across
splits: a training photo that is also a validation photo makes scores too good. Lists every problem
with file, record and id, then a table of the splits. Exit code 0 where nothing is wrong, else 2.
Only --data_dir, --image_size and --classes matter here.
"""

import tensorflow as tf

from flowers_tpu.data import check
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import stderr, terminal
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError


def check_data(spec: Spec) -> None:
    """Checks a whole data set and lists what is wrong with it.

    Raises:
        RequestError: something is.
    """
    with stderr.without_chatter():
        tf.config.list_logical_devices()  # starts TensorFlow
    recipe = Recipe.on(one_cpu_replica(), spec)
    folder = recipe.data_folder()
    report = check.check(folder, spec.data.image_size, len(recipe.class_names(folder)))
    for problem in report.problems:
        terminal.say(problem)
    terminal.say(f"\n{report.summary.to_string(index=False)}\n")
    if report.problems:
        raise RequestError(f"--data_dir: {folder}: problems, listed above: {len(report.problems)}")
    terminal.say(f"{folder}: nothing is wrong.")
