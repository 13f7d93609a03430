"""Checks a whole data set before anything is trained on it.

    python scripts/check_data.py --data_dir=DATA --image_size=192

Reads every shard (checksums, and the counts in their names) and decodes every photo; checks sizes
and labels, and that no id and no photo (byte for byte) is there twice, within a split or across
splits: a training photo that is also a validation photo makes scores too good. Lists every problem
with file, record and id, then a table of the splits. Exit code 0 where nothing is wrong, else 2.
Only --data_dir, --image_size and --classes matter here.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("experiment.check_data", __doc__)
