"""Measures how fast the program does its job, where the time goes, and how that compares.

    python scripts/benchmark.py --flagfile=scripts/flagfiles/quickstart.flags
    python scripts/benchmark.py --measure=input,memory,resume --data_dir=DATA --image_size=512

All that is compared takes turns, round by round, in one process; the table has the median of the
rounds and the quartiles, and ratios are worked out round by round. Nothing else should run on the
machine meanwhile. The results also go to benchmark.json, .csv and .png, anew after each measure.
"""

from flowers_tpu import command_line
from flowers_tpu.benchmarks.options import Options

if __name__ == "__main__":
    command_line.run("benchmarks.run.benchmark", __doc__, options=Options)
